//! The checks that need no running system.

use crate::House;
use crate::command::{Failure, Run, step};
use crate::tidy;

/// The version of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// Runs every check; stops at the first that fails.
pub(crate) fn run(house: &House) -> Result<(), Failure> {
    step("rules of the house");
    tidy::run(&house.root)?;
    step("format");
    cargo(house, &["fmt", "--all", "--check"]).run()?;
    step("lints");
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cargo(house, &clippy).run()?;
    step("documentation");
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    cargo(house, &doc)
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")
        .run()?;
    step("licences, sources, and who may depend on whom");
    deny(house)
}

fn cargo(house: &House, arguments: &[&str]) -> Run {
    Run::new("cargo").args(arguments).dir(&house.root)
}

/// Checks deny.toml with a cargo-deny of our own, which is built the first time.
fn deny(house: &House) -> Result<(), Failure> {
    let tools = house.target.join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        step("installing cargo-deny (about 5 minutes the first time)");
        let install = cargo(house, &["install", "--locked", "--version", CARGO_DENY]);
        let install = install.arg("--root").arg(&tools).arg("cargo-deny");
        install
            .env("CARGO_TARGET_DIR", tools.join("build"))
            .run_quietly("installing cargo-deny")?;
    }
    let checks = ["bans", "licenses", "sources"];
    Run::new(program).args(["--locked", "check"]).args(checks).dir(&house.root).run()
}
