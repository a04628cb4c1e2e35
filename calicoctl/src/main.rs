//! The program `calicoctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    calicoctl::run::main(std::env::args_os())
}
