//! `cargo xtask image`: our image as an archive, made on this machine without a registry.
//!
//! The programs are built without libraries, for musl, so that they run on every node and look up
//! names without what a C library would load. Paths of this machine stay out of them. Two runs over
//! the same programs give the same digest, which is printed.

mod sbom;

use std::path::{Path, PathBuf};

use container_image::{Compression, Image, Layer, calico};

use crate::House;
use crate::command::{Failure, Run, step};
use crate::setup;

/// What the programs are built for.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The packages with the programs of the image.
const PACKAGES: &[&str] = &["calicoctl", "cni-plugin", "kube-controllers", "node-daemon"];
/// Where the image says what it is made of.
const SBOM_PATH: &str = "usr/share/doc/calico/sbom.cdx.json";

/// How the image is made.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's name.
    #[arg(long, default_value_t = format!("localhost/calico:{}", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// The profile that the programs are built with; `dev` is quick and large.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Where the archive goes; the list of what is in it goes beside it.
    #[arg(long, default_value = "target/image/calico.tar")]
    output: PathBuf,
}

/// Builds the programs and writes the image and its bill of materials.
pub(crate) fn run(house: &House, arguments: &Arguments) -> Result<(), Failure> {
    setup::for_image(house)?;
    step(&format!("building the programs for {TARGET} (about 10 minutes the first time)"));
    build(house, &arguments.profile)?;
    let programs = house.target.join(TARGET).join(directory(&arguments.profile));
    let sbom = sbom::read(&house.root, PACKAGES)?;
    let image = image(&arguments.name, &programs, &house.plugins(), &sbom)?;
    let output = house.root.join(&arguments.output);
    let digest = write(&image, &output)?;
    let beside = output.with_extension("cdx.json");
    std::fs::write(&beside, sbom).map_err(|source| Failure::File { path: beside, source })?;
    step(&format!("{} {digest}\n    in {}", arguments.name, output.display()));
    Ok(())
}

fn build(house: &House, profile: &str) -> Result<(), Failure> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    // Where this checkout and the registry's sources are is nobody's business, and would make
    // the bytes depend on it.
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    let flags = [
        format!("--remap-path-prefix={}=/calico", house.root.display()),
        format!("--remap-path-prefix={home}=/cargo"),
    ];
    Run::new("cargo")
        .args(["build", "--locked", "--target", TARGET, "--profile", profile])
        .args(packages)
        .dir(&house.root)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags.join(" "))
        .run()
}

/// Returns the directory of a profile; that of `dev` has another name.
fn directory(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

/// Returns the image, after a look at whether everything in it runs without libraries.
fn image(name: &str, programs: &Path, plugins: &Path, sbom: &str) -> Result<Image, Failure> {
    let mut image = calico::image(name, programs, plugins);
    image.layers.push(Layer::default().with_text(SBOM_PATH, sbom));
    for path in image.layers.iter().flat_map(Layer::sources) {
        let bytes = std::fs::read(path)
            .map_err(|source| Failure::File { path: path.to_owned(), source })?;
        if asks_for_loader(&bytes) {
            let problem = "needs libraries that the image does not have: build it for musl";
            return Err(Failure::Machine(format!("{}: {problem}", path.display())));
        }
    }
    Ok(image)
}

fn write(image: &Image, path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let digest = image.write(Compression::Gzip, file);
    digest.map(|it| it.to_string()).map_err(|error| Failure::Machine(error.to_string()))
}

/// Whether a program names another that loads its libraries: a program header of the kind
/// `PT_INTERP` in a 64-bit file (ELF-64 object file format, version 1.5, §6).
fn asks_for_loader(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(len)?)?;
        Some(field.iter().rev().fold(0, |all, byte| (all << 8) | u64::from(*byte)))
    };
    let headers = || -> Option<Vec<u64>> {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let kind = |index: u64| {
            let at = start.checked_add(index.checked_mul(size)?)?;
            number(usize::try_from(at).ok()?, 4)
        };
        (0..count).map(kind).collect()
    };
    headers().unwrap_or_default().contains(&u64::from(PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (programs, plugins) = (dir.path().join("programs"), dir.path().join("plugins"));
        for path in [&programs, &plugins] {
            std::fs::create_dir(path).unwrap();
        }
        for name in calico::PROGRAMS.iter().chain([&calico::PLUGIN]) {
            std::fs::write(programs.join(name), name).unwrap();
        }
        for name in calico::REFERENCE_PLUGINS {
            std::fs::write(plugins.join(name), name).unwrap();
        }
        (dir, programs, plugins)
    }

    #[test]
    fn two_runs_over_the_same_programs_give_the_same_archive() {
        let (dir, programs, plugins) = places();
        let made = |name: &str| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let sbom = sbom::read(&root, PACKAGES).unwrap();
            let image = image("localhost/calico:test", &programs, &plugins, &sbom).unwrap();
            let path = dir.path().join(name);
            let digest = write(&image, &path).unwrap();
            (digest, std::fs::read(path).unwrap())
        };
        let (first, second) = (made("first.tar"), made("second.tar"));
        assert!(first.0.starts_with("sha256:") && first.0.len() == 71, "{}", first.0);
        assert!(first == second, "{} and {}", first.0, second.0);
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let (_dir, programs, plugins) = places();
        // Ours does, and is a program of 64 bits.
        std::fs::copy(std::env::current_exe().unwrap(), programs.join("calicoctl")).unwrap();
        let error = image("localhost/calico:test", &programs, &plugins, "{}").unwrap_err();
        assert!(error.to_string().contains("calicoctl: needs libraries"), "{error}");
    }

    #[test]
    fn what_is_no_program_asks_for_nothing() {
        assert!(!asks_for_loader(b""));
        assert!(!asks_for_loader(b"#!/bin/sh\n"));
        assert!(!asks_for_loader(&[0xff; 64]));
    }
}
