//! The images of the machines, made here: a registry cannot be assumed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use container_image::{Compression, Entry, Image, Layer, calico};

use crate::Error;
use crate::process::output;

/// The image of our programs, as the manifests name it.
pub const OURS: &str = concat!("localhost/calico:", env!("CARGO_PKG_VERSION"));
/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:lab";
/// What the pods of tests run: a shell and many small programs.
pub const TOOLS: &str = "localhost/busybox:lab";
/// A shell that needs no library.
const BUSYBOX: &str = "/bin/busybox";

/// Writes the images into a directory, and returns the archives.
///
/// # Errors
///
/// [`Error`] with what is missing.
pub fn write_all(bin_dir: &Path, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    crate::sandbox::make_dirs(dir)?;
    let programs = stripped(bin_dir, &dir.join("programs"))?;
    let ours = with_libraries(calico::image(OURS, &programs, &reference_plugins()?));
    let (pause, tools) = (with_libraries(pause()), with_libraries(busybox(TOOLS)));
    let images = [("pause", pause), ("busybox", tools), ("calico", ours)];
    images
        .into_iter()
        .map(|(name, image)| write(&image, &dir.join(format!("{name}.tar"))))
        .collect()
}

/// Copies our programs without what debuggers need, which is most of a debug build.
fn stripped(from: &Path, to: &Path) -> Result<PathBuf, Error> {
    crate::sandbox::make_dirs(to)?;
    for name in calico::PROGRAMS.iter().chain([&calico::PLUGIN]) {
        let program = from.join(name);
        if !program.exists() {
            return Err(Error::Missing(program));
        }
        output(Command::new("strip").arg("-o").arg(to.join(name)).arg(program))?;
    }
    Ok(to.to_owned())
}

/// Returns where the reference plugins are: where the environment says, or where xtask builds them.
fn reference_plugins() -> Result<PathBuf, Error> {
    let default = || crate::control_plane::root().join("target/lab/plugins");
    let dir = std::env::var_os("CALICO_CNI_PLUGINS").map_or_else(default, PathBuf::from);
    if dir.join("loopback").exists() { Ok(dir) } else { Err(Error::Missing(dir)) }
}

fn write(image: &Image, path: &Path) -> Result<PathBuf, Error> {
    let file = File::create(path).map_err(Error::file(path))?;
    let file = std::io::BufWriter::new(file);
    image.write(Compression::None, file).map_err(Error::wrong)?;
    Ok(path.to_owned())
}

fn pause() -> Image {
    Image { command: words(&["/bin/busybox", "sleep", "2147483647"]), ..busybox(PAUSE) }
}

fn busybox(name: &str) -> Image {
    let links = ["sh", "wget", "nc", "httpd", "sleep", "cat", "echo", "ip", "ping", "nslookup"];
    let links = links.into_iter().fold(Layer::default(), |layer, name| {
        layer.with(&format!("bin/{name}"), Entry::Link { to: "busybox".to_owned() })
    });
    Image {
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        command: words(&["/bin/sh"]),
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        labels: BTreeMap::new(),
        layers: vec![
            links
                .with_program("bin/busybox", BUSYBOX)
                .with("lib", Entry::Link { to: "usr/lib".to_owned() })
                .with("lib64", Entry::Link { to: "usr/lib64".to_owned() })
                .with("tmp", Entry::Directory { mode: 0o1777 }),
        ],
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Adds the libraries that programs of a debug build are linked with; a released image has none.
fn with_libraries(image: Image) -> Image {
    let mut libraries = BTreeSet::new();
    for path in image.layers.iter().flat_map(Layer::sources) {
        // ldd(1) fails for what needs none.
        let said = output(Command::new("ldd").arg(path)).unwrap_or_default();
        libraries.extend(
            said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned),
        );
    }
    let layer = libraries.iter().fold(Layer::default(), |layer, path| {
        // The image has /lib and /lib64 in /usr, like this machine.
        layer.with_program(&format!("usr{path}"), path)
    });
    let mut layers = vec![layer];
    layers.extend(image.layers);
    Image { layers, ..image }
}
