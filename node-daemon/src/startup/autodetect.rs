//! Which of the machine's addresses is the node's (`IP_AUTODETECTION_METHOD`).
//!
//! Each look returns what it looked at and why it was passed over, so that the
//! log explains a choice, and the error a failure.

use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use config::value::{AddressMethod, Pattern};
use model::net::{Cidr, Family, InterfaceAddr};

use super::host::{Host, Interface};

/// Interfaces that belong to container engines, tunnels and ourselves: whole names.
///
/// Differs from Calico: the whole name must match, so that `lo` does not leave out `flow0`.
const NEVER: &str = "docker.*|cbr.*|dummy.*|podman.*|virbr.*|lxcbr.*|veth.*|lo|br-.*|cali.*|tunl.*\
    |flannel.*|kube-ipvs.*|cni.*|vxlan[.]calico.*|vxlan-v6[.]calico.*|wireguard[.]cali.*\
    |wg-v6[.]cali.*|nodelocaldns.*";

static NEVER_PATTERN: LazyLock<Option<Pattern>> =
    LazyLock::new(|| Pattern::new(&format!("^({NEVER})$")));

/// What a look for an address found, and everything that was looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Detection {
    /// The address, if there is one.
    pub(crate) found: Option<InterfaceAddr>,
    /// What was looked at, in order.
    pub(crate) candidates: Vec<Candidate>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// An interface, perhaps with one of its addresses; or what else was asked.
    pub(crate) subject: String,
    /// What became of it.
    pub(crate) verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Chosen,
    /// Its name is one of those that are left out by default.
    ExcludedByDefault,
    /// Its name is left out by the method.
    ExcludedByMethod,
    /// Its name is not what the method asks for.
    NameDiffers,
    Down,
    /// It has no address of the family.
    NoAddress,
    /// The address is a link-local, loopback or multicast one.
    NotGlobal,
    OutsideNetworks,
    /// No interface has the address.
    NotOnHost,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Chosen => "chosen",
            Verdict::ExcludedByDefault => "its name is left out by default",
            Verdict::ExcludedByMethod => "its name is left out by the method",
            Verdict::NameDiffers => "its name does not match",
            Verdict::Down => "is down",
            Verdict::NoAddress => "has no address of this family",
            Verdict::NotGlobal => "is valid on its link only",
            Verdict::OutsideNetworks => "is outside the networks asked for",
            Verdict::NotOnHost => "is on no interface",
        };
        write!(f, "{}: {verdict}", self.subject)
    }
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.candidates.is_empty() {
            return f.write_str("nothing to choose from");
        }
        for (index, candidate) in self.candidates.iter().enumerate() {
            write!(f, "{}{candidate}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// What only the world outside can answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    /// From which address packets to the target of `can-reach` leave, if any do.
    pub(crate) reaching_from: Option<IpAddr>,
    /// The addresses of type `InternalIP` in the Kubernetes Node.
    pub(crate) internal: Vec<IpAddr>,
}

/// Looks for the node's address of `family`.
pub(crate) fn detect(
    method: &AddressMethod,
    family: Family,
    host: &Host,
    answers: &Answers,
) -> Detection {
    let mut look = Look { family, detection: Detection::default() };
    match method {
        AddressMethod::FirstFound => look.walk(host, by_default, &[]),
        AddressMethod::SkipInterface(skipped) => {
            look.walk(host, |name| by_default(name).or_else(|| by_method(name, skipped)), &[]);
        }
        AddressMethod::Cidr(nets) => look.walk(host, by_default, nets),
        AddressMethod::Interface(wanted) => {
            for pattern in wanted {
                let differs =
                    |name: &str| (!pattern.is_match(name)).then_some(Verdict::NameDiffers);
                look.walk(host, differs, &[]);
            }
        }
        AddressMethod::CanReach(target) => {
            look.on_host(host, answers.reaching_from, &format!("the way to {target}"));
        }
        AddressMethod::KubernetesInternalIp => {
            let internal = answers.internal.iter().find(|addr| Family::of(**addr) == family);
            look.internal(host, internal.copied());
        }
    }
    look.detection
}

/// Is an interface of this name left out by default?
fn by_default(name: &str) -> Option<Verdict> {
    let is_excluded = NEVER_PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(name));
    is_excluded.then_some(Verdict::ExcludedByDefault)
}

fn by_method(name: &str, skipped: &[Pattern]) -> Option<Verdict> {
    let is_skipped = skipped.iter().any(|pattern| pattern.is_match(name));
    is_skipped.then_some(Verdict::ExcludedByMethod)
}

struct Look {
    family: Family,
    detection: Detection,
}

impl Look {
    /// Takes the first good address of the first interface that `exclude` lets pass.
    fn walk(&mut self, host: &Host, exclude: impl Fn(&str) -> Option<Verdict>, nets: &[Cidr]) {
        for interface in &host.interfaces {
            if self.detection.found.is_some() {
                return;
            }
            let refusal = exclude(interface.name.as_str())
                .or_else(|| (!interface.is_up).then_some(Verdict::Down));
            match refusal {
                Some(verdict) => self.note(interface.name.to_string(), verdict),
                None => self.walk_addrs(interface, nets),
            }
        }
    }

    fn walk_addrs(&mut self, interface: &Interface, nets: &[Cidr]) {
        let mut is_empty = true;
        for addr in &interface.addrs {
            if Family::of(addr.addr()) != self.family {
                continue;
            }
            is_empty = false;
            let subject = format!("{} {addr}", interface.name);
            if !is_global(addr.addr()) {
                self.note(subject, Verdict::NotGlobal);
            } else if !nets.is_empty() && !nets.iter().any(|net| net.contains(addr.addr())) {
                self.note(subject, Verdict::OutsideNetworks);
            } else {
                self.choose(subject, *addr);
                return;
            }
        }
        if is_empty {
            self.note(interface.name.to_string(), Verdict::NoAddress);
        }
    }

    /// Takes `addr` if an interface has it.
    fn on_host(&mut self, host: &Host, addr: Option<IpAddr>, subject: &str) {
        let addr = addr.filter(|addr| Family::of(*addr) == self.family);
        let Some(addr) = addr else { return self.note(subject.to_owned(), Verdict::NoAddress) };
        match host.find(addr) {
            Some((interface, found)) => self.choose(format!("{} {found}", interface.name), found),
            None => self.note(format!("{subject}, {addr}"), Verdict::NotOnHost),
        }
    }

    /// Takes Kubernetes' word for an address, also when no interface has it: behind some
    /// clouds' translation the machine itself never sees it.
    fn internal(&mut self, host: &Host, addr: Option<IpAddr>) {
        const SUBJECT: &str = "InternalIP of the Kubernetes Node";
        self.on_host(host, addr, SUBJECT);
        if let (Some(addr), None) = (addr, self.detection.found) {
            let alone = InterfaceAddr::new(addr, Family::of(addr).bits());
            self.detection.found = alone.ok();
        }
    }

    fn choose(&mut self, subject: String, addr: InterfaceAddr) {
        self.note(subject, Verdict::Chosen);
        self.detection.found = Some(addr);
    }

    fn note(&mut self, subject: String, verdict: Verdict) {
        self.detection.candidates.push(Candidate { subject, verdict });
    }
}

/// May other machines send to `addr`, private ranges included?
fn is_global(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            !(addr.is_loopback()
                || addr.is_link_local()
                || addr.is_multicast()
                || addr.is_unspecified()
                || addr.is_broadcast())
        }
        IpAddr::V6(addr) => {
            !(addr.is_loopback()
                || addr.is_unicast_link_local()
                || addr.is_multicast()
                || addr.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests;
