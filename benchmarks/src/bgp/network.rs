//! Three namespaces on one bridge, whose own namespace is that of the benchmark.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use lab::Error;
use lab::process::ip;

/// A place with an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) netns: &'static str,
    pub(super) addr: Ipv4Addr,
}

pub(super) const INJECTOR: Place = Place { netns: "injector", addr: Ipv4Addr::new(10, 98, 0, 1) };
pub(super) const DEVICE: Place = Place { netns: "device", addr: Ipv4Addr::new(10, 98, 0, 2) };
pub(super) const MONITOR: Place = Place { netns: "monitor", addr: Ipv4Addr::new(10, 98, 0, 3) };

/// Makes the bridge and the places.
///
/// # Errors
///
/// [`Error::Program`] of ip(8).
pub(super) fn make() -> Result<(), Error> {
    run("link add br0 type bridge")?;
    run("link set br0 up")?;
    for Place { netns, addr } in [INJECTOR, DEVICE, MONITOR] {
        run(&format!("netns add {netns}"))?;
        run(&format!("link add {netns} type veth peer name eth0 netns {netns}"))?;
        run(&format!("link set {netns} master br0 up"))?;
        run(&format!("-n {netns} link set lo up"))?;
        run(&format!("-n {netns} link set eth0 up"))?;
        run(&format!("-n {netns} address add {addr}/16 dev eth0"))?;
    }
    Ok(())
}

/// Returns the address of a reflector's client.
pub(super) fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 98, 16, 0).to_bits().wrapping_add(number))
}

/// Gives the bridge the addresses of `count` clients.
///
/// # Errors
///
/// [`Error::Program`] of ip(8).
pub(super) fn add_clients(count: u32, directory: &Path) -> Result<(), Error> {
    let mut batch = String::from("address flush dev br0\n");
    for number in 0..count {
        let _ = writeln!(batch, "address add {}/16 dev br0", client(number));
    }
    let file = directory.join("addresses");
    std::fs::write(&file, batch).map_err(Error::file(&file))?;
    ip(&["-batch", &file.to_string_lossy()]).map(drop)
}

/// Gives the bridge an address of its own.
///
/// # Errors
///
/// [`Error::Program`] of ip(8).
pub(super) fn add_to_bridge(addr: Ipv4Addr) -> Result<(), Error> {
    run(&format!("address replace {addr}/16 dev br0"))
}

fn run(arguments: &str) -> Result<(), Error> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    ip(&arguments).map(drop)
}
