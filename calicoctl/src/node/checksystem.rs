//! `calicoctl node checksystem`: has this kernel what a node needs?

use std::fs;
use std::path::Path;

use crate::Error;
use crate::output::print;
use crate::run::Verdict;

/// The oldest kernel whose nftables can do what policy is written with.
const OLDEST: (u32, u32) = (5, 10);
/// What must be in the kernel: its name in the configuration, its module, and what it is for.
const NEEDED: [(&str, &str, &str); 9] = [
    ("CONFIG_NF_TABLES", "nf_tables", "policy"),
    ("CONFIG_NF_CONNTRACK", "nf_conntrack", "policy"),
    ("CONFIG_NFT_CT", "nft_ct", "policy"),
    ("CONFIG_NFT_FIB", "nft_fib", "the guard of sources"),
    ("CONFIG_NFT_MASQ", "nft_masq", "natOutgoing"),
    ("CONFIG_NFT_REJECT", "nft_reject", "connections that end"),
    ("CONFIG_NF_CT_NETLINK", "nf_conntrack_netlink", "connections that end"),
    ("CONFIG_VETH", "veth", "pods"),
    ("CONFIG_IP_ADVANCED_ROUTER", "", "routes"),
];

/// Looks at the kernel that runs, or at what `config` says of one.
pub(super) fn run(config: Option<&Path>) -> Result<Verdict, Error> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let given = config.map(|path| {
        let source = |source| Error::File { action: "read", path: path.to_owned(), source };
        fs::read_to_string(path).map_err(source)
    });
    let config = match given.transpose()? {
        Some(text) => text,
        None => fs::read_to_string(format!("/boot/config-{release}")).unwrap_or_default(),
    };
    let builtin = format!("/lib/modules/{release}/modules.builtin");
    let modules = format!("/lib/modules/{release}/modules.dep");
    let known = [builtin, modules, "/proc/modules".to_owned()];
    let known: String = known.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let mut lines = vec!["Checking kernel version...".to_owned()];
    let is_new = version(release).is_some_and(|version| version >= OLDEST);
    lines.push(line(release, if is_new { State::There } else { State::Missing }, ""));
    lines.push("Checking kernel modules...".to_owned());
    let mut is_fine = is_new;
    for (option, module, purpose) in NEEDED {
        let state = state(option, module, &config, &known);
        is_fine &= state != State::Missing;
        lines.push(line(if module.is_empty() { option } else { module }, state, purpose));
    }
    lines.push(if is_fine {
        "System meets minimum system requirements to run Calico!".to_owned()
    } else {
        "System doesn't meet one or more minimum systems requirements to run Calico".to_owned()
    });
    print(&lines.join("\n"))?;
    Ok(if is_fine { Verdict::Fine } else { Verdict::Problems })
}

/// Whether the kernel has something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    There,
    Missing,
    Unknown,
}

/// Finds out whether the kernel has something: its configuration says, or its modules are there.
fn state(option: &str, module: &str, config: &str, modules: &str) -> State {
    let has = |text: &str| {
        let name = format!("{module}.ko");
        !module.is_empty()
            && text
                .lines()
                .any(|line| line.contains(&name) || line.starts_with(&format!("{module} ")))
    };
    let is_set = |line: &str| line == format!("{option}=y") || line == format!("{option}=m");
    if has(modules) || config.lines().any(is_set) {
        State::There
    } else if config.contains(&format!("# {option} is not set")) {
        State::Missing
    } else {
        // A kernel that says nothing of itself may still have it.
        State::Unknown
    }
}

fn line(name: &str, state: State, purpose: &str) -> String {
    let state = match state {
        State::There => "OK",
        State::Missing => "MISSING",
        State::Unknown => "unknown",
    };
    let purpose = if purpose.is_empty() { String::new() } else { format!(" ({purpose})") };
    format!("\t\t{name:<30}{state}{purpose}")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_known_by_configuration_or_modules() {
        let config = "CONFIG_NF_TABLES=m\nCONFIG_VETH=y\n# CONFIG_NFT_FIB is not set\n";
        let modules = "kernel/net/netfilter/nft_ct.ko.xz:\nnf_conntrack 196608 1 - Live 0x0\n";
        for (option, module, expected) in [
            ("CONFIG_NF_TABLES", "nf_tables", State::There),
            ("CONFIG_VETH", "veth", State::There),
            ("CONFIG_NFT_CT", "nft_ct", State::There),
            ("CONFIG_NF_CONNTRACK", "nf_conntrack", State::There),
            ("CONFIG_NFT_FIB", "nft_fib", State::Missing),
            ("CONFIG_NFT_MASQ", "nft_masq", State::Unknown),
        ] {
            assert_eq!(state(option, module, config, modules), expected, "{option}");
        }
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("nonsense"), None);
    }
}
