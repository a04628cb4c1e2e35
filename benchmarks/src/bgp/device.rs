//! Speakers under test: how each is configured and started.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use clap::ValueEnum;
use lab::Error;
use lab::process::{Process, Program};

use super::network::Place;

/// Whose speaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Device {
    /// That of this project, with the shell that calico-node has around it.
    Ours,
    /// BIRD 2.
    Bird,
    /// bgpd of FRR.
    Frr,
    /// gobgpd.
    Gobgp,
}

/// A speaker's configuration.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) place: Place,
    pub(super) asn: u32,
    /// Addresses and AS numbers.
    pub(super) peers: Vec<(Ipv4Addr, u32)>,
    /// Is it a reflector, and its peers are clients?
    pub(super) is_reflector: bool,
    /// Do its routes go into the kernel's table? BIRD alone can.
    pub(super) installs: bool,
    /// Statements of static routes to announce, by BIRD alone.
    pub(super) routes: Option<std::path::PathBuf>,
}

impl Device {
    /// Returns the name that tables have.
    pub(super) fn name(self) -> String {
        super::name_of(&self)
    }

    /// Starts it; its files go into `directory`.
    pub(super) fn start(self, setup: &Setup, directory: &Path) -> Result<Process, Error> {
        let netns = setup.place.netns;
        let at = |name: &str| directory.join(format!("{netns}.{name}")).display().to_string();
        let (conf, ctl) = (at("conf"), at("ctl"));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (text, program) = match self {
            Self::Ours => {
                let own =
                    std::env::current_exe().map_err(Error::file(Path::new("/proc/self/exe")))?;
                (
                    super::speaker::write(setup),
                    vec![own.display().to_string(), "speaker".to_owned(), conf.clone()],
                )
            }
            Self::Bird => (bird(setup), words(&format!("bird -f -c {conf} -s {ctl}"))),
            Self::Frr => {
                let zebra = at("zserv");
                let addr = setup.place.addr;
                let line = format!(
                    "/usr/lib/frr/bgpd -n -S -u root -g root -z {zebra} --vty_socket {} -i {} -f {conf} -l {addr}",
                    directory.display(),
                    at("pid")
                );
                (frr(setup), words(&line))
            }
            Self::Gobgp => {
                let line = format!("gobgpd -f {conf} --api-hosts 127.0.0.1:50051 --pprof-disable");
                (gobgp(setup), words(&line))
            }
        };
        std::fs::write(&conf, text).map_err(Error::file(Path::new(&conf)))?;
        let command = words(&format!("ip netns exec {netns}")).into_iter().chain(program);
        Program::new(netns, Path::new(&at("log")), command).start()
    }
}

fn bird(setup: &Setup) -> String {
    let (addr, asn) = (setup.place.addr, setup.asn);
    let mut text = format!("log stderr all;\nrouter id {addr};\nprotocol device {{}}\n");
    if let Some(routes) = &setup.routes {
        let _ = writeln!(text, "protocol static injected {{\ndisabled;\nipv4;");
        let _ = writeln!(text, "include \"{}\";\n}}", routes.display());
    }
    if setup.installs {
        text.push_str("protocol kernel { ipv4 { export all; }; }\n");
    }
    for (number, (peer, peer_asn)) in setup.peers.iter().enumerate() {
        let client = if setup.is_reflector { "rr client;" } else { "" };
        let _ = writeln!(
            text,
            "protocol bgp peer{number} {{ local {addr} as {asn}; neighbor {peer} as {peer_asn}; \
             direct; {client} connect delay time 1; connect retry time 1; \
             ipv4 {{ import all; export all; }}; }}"
        );
    }
    text
}

fn frr(setup: &Setup) -> String {
    let (addr, asn) = (setup.place.addr, setup.asn);
    let mut text = format!(
        "router bgp {asn}\n bgp router-id {addr}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n"
    );
    for (peer, peer_asn) in &setup.peers {
        let _ = writeln!(text, " neighbor {peer} remote-as {peer_asn}");
        let _ = writeln!(text, " neighbor {peer} timers connect 1");
        let _ = writeln!(text, " neighbor {peer} advertisement-interval 0");
    }
    text.push_str(" address-family ipv4 unicast\n");
    for (peer, _) in setup.peers.iter().filter(|_| setup.is_reflector) {
        let _ = writeln!(text, "  neighbor {peer} route-reflector-client");
    }
    text.push_str(" exit-address-family\n");
    text
}

fn gobgp(setup: &Setup) -> String {
    let (addr, asn) = (setup.place.addr, setup.asn);
    let mut text = format!(
        "[global.config]\nas = {asn}\nrouter-id = \"{addr}\"\nlocal-address-list = [\"{addr}\"]\n"
    );
    for (peer, peer_asn) in &setup.peers {
        let _ = writeln!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = {peer_asn}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1"
        );
        if setup.is_reflector {
            let _ = writeln!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{addr}\""
            );
        }
    }
    text
}
