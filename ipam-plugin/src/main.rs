//! calico-ipam by itself; see [`ipam_plugin::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ipam_plugin::program::main()
}
