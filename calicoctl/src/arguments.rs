//! The command line of `calicoctl`, with Calico's flags.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use model::net::Cidr;
use model::policy::PolicyId;
use model::vrf::VrfName;
use telemetry::logging::Level;

use crate::output::Format;

/// Looks at a Calico cluster's objects, addresses and policies, and changes them.
#[derive(Debug, Parser)]
#[command(
    name = "calicoctl",
    version = api::CALICO_VERSION,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, and the check or status found problems.\n\n\
                  The cluster is that of KUBECONFIG, of ~/.kube/config, or of the file that -c names."
)]
pub struct Arguments {
    /// What holds for all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for all commands.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// What to log to standard error: debug, info, warning, error, panic or none.
    #[arg(short, long, global = true, default_value = "warning", value_parser = level)]
    pub log_level: Level,
    /// The file that says where the datastore is; if there is none, the environment does.
    #[arg(short, long, global = true, value_name = "FILE", env = "CALICOCTL_CONFIG")]
    pub config: Option<PathBuf>,
    /// The context of the kubeconfig, instead of its current one.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Write also if the cluster is of another release of Calico than this program.
    #[arg(long, global = true)]
    pub allow_version_mismatch: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show objects, as tables or as they are written.
    Get(Get),
    /// Create the objects of a file.
    Create(Write),
    /// Create the objects of a file, or replace those that exist.
    Apply(Write),
    /// Replace objects that exist by those of a file.
    Replace(Write),
    /// Delete objects by their names, or those of a file.
    Delete(Delete),
    /// Change parts of an object.
    Patch(Patch),
    /// Set a label of an object, or take it away.
    Label(Label),
    /// Say whether the objects of a file are valid; no cluster is needed.
    Validate(Write),
    /// Print the objects of a file as `projectcalico.org/v3`; no cluster is needed.
    Convert {
        /// Which file.
        #[command(flatten)]
        file: Write,
        /// How to print them.
        #[arg(short, long, default_value = "yaml")]
        output: Format,
    },
    /// Addresses: who has them, what is wrong with them, and how long they will last.
    Ipam {
        /// The VRF to look at, or to change. Without it: those who are in none; `check` and `show`
        /// tell of all.
        #[arg(long, value_name = "NAME", global = true)]
        vrf: Option<VrfName>,
        /// What of it.
        #[command(subcommand)]
        task: Ipam,
    },
    /// Policies: where they are in force.
    Policy {
        /// What of them.
        #[command(subcommand)]
        task: Policy,
    },
    /// What keeps pods of this node from starting or reaching each other; run it on the node, as root.
    Check(CheckNode),
    /// What becomes of this node, on which Calico works, when calico-node of this project takes over.
    Adopt(Adopt),
    /// This node: run it there, as root.
    Node {
        /// What of it.
        #[command(subcommand)]
        task: Node,
    },
    /// The cluster as a whole.
    Cluster {
        /// What of it.
        #[command(subcommand)]
        task: Cluster,
    },
    /// The datastore as a whole.
    Datastore {
        /// What of it.
        #[command(subcommand)]
        task: Datastore,
    },
    /// The versions of this program and of the cluster.
    Version {
        /// Only that of this program; no cluster is needed.
        #[arg(long)]
        client: bool,
    },
    /// Print a script that completes this command line.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which objects to show, and how.
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// The kind, such as `ippools` or `networkpolicy`.
    pub kind: String,
    /// Their names; all if none is given.
    pub names: Vec<String>,
    /// ps, wide, yaml, json, name or custom-columns=HEAD,HEAD.
    #[arg(short, long, default_value = "ps")]
    pub output: String,
    /// The namespace.
    #[arg(short, long, default_value = "default", conflicts_with = "all_namespaces")]
    pub namespace: String,
    /// Those of all namespaces.
    #[arg(short = 'A', short_alias = 'a', long)]
    pub all_namespaces: bool,
    /// Leave out what only this cluster knows of them.
    #[arg(long)]
    pub export: bool,
}

/// Which objects to write.
#[derive(Args, Clone, Debug)]
pub struct Write {
    /// A file, a folder, or - for standard input: YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    pub filename: PathBuf,
    /// Read folders in the folder too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Files without objects are no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// With create: leave objects alone that exist.
    #[arg(long)]
    pub skip_exists: bool,
    /// The namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// What to do with an object that exists, and with one that does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteMode {
    /// It must not exist.
    Create,
    /// Either is fine.
    Apply,
    /// It must exist.
    Replace,
}

impl WriteMode {
    /// Returns what has been done then.
    #[must_use]
    pub const fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Apply => "applied",
            Self::Replace => "replaced",
        }
    }
}

/// Which objects to delete.
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// The kind.
    pub kind: Option<String>,
    /// The names.
    pub names: Vec<String>,
    /// A file, a folder, or - for standard input, instead.
    #[arg(short, long, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Read folders in the folder too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Files without objects are no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// Objects that do not exist are no error.
    #[arg(short, long)]
    pub skip_not_exists: bool,
    /// The namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// What to change of an object.
#[derive(Args, Clone, Debug)]
pub struct Patch {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The change, in YAML or JSON.
    #[arg(short, long)]
    pub patch: String,
    /// What the change is.
    #[arg(short = 't', long = "type", default_value = "strategic")]
    pub kind_of_patch: PatchType,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// How a change is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum PatchType {
    /// As a part of the object; here the same as `merge`.
    Strategic,
    /// As a part of the object (RFC 7396).
    Merge,
    /// As a list of operations (RFC 6902).
    Json,
}

/// Which label to set, or to take away.
#[derive(Args, Clone, Debug)]
pub struct Label {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// KEY=VALUE, or the key with --remove.
    pub label: String,
    /// Set it also if it has another value.
    #[arg(long, conflicts_with = "remove")]
    pub overwrite: bool,
    /// Take it away.
    #[arg(long)]
    pub remove: bool,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// Arguments of `adopt`.
#[derive(Args, Debug)]
pub struct Adopt {
    /// Only look: calico-node does the rest when it starts.
    #[arg(long, required_unless_present = "remove", conflicts_with = "remove")]
    pub check: bool,
    /// Remove what Calico has left in iptables and ipsets, for a calico-node whose image has no
    /// programs for that; it must be in sync.
    #[arg(long)]
    pub remove: bool,
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// What to do about this node.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// The BGP sessions of this node.
    Status {
        /// How to print it.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
    /// Collect what somebody who helps wants to see, without secrets, in an archive.
    Diags {
        /// Where Calico's logs are.
        #[arg(long, value_name = "DIRECTORY", default_value = "/var/log/calico")]
        log_dir: PathBuf,
    },
    /// Says how calico-node is started here: not as a container by calicoctl.
    Run {
        /// Whatever Calico's takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Whether this kernel has what a node needs.
    Checksystem {
        /// The configuration of the kernel, instead of that in /boot.
        #[arg(short = 'f', long, value_name = "FILE")]
        kernel_config: Option<PathBuf>,
    },
}

/// What to do about the cluster.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Collect what somebody who helps wants to see, without secrets, in an archive; kubectl is needed.
    Diags {
        /// How old the oldest lines of logs may be, such as 30m or 2h; all if nothing is said.
        #[arg(long, value_name = "DURATION")]
        since: Option<String>,
        /// Of how many calico-nodes to take the logs.
        #[arg(long, default_value_t = 5)]
        max_logs: usize,
        /// The nodes whose logs are taken first, with commas between them.
        #[arg(long, value_name = "NODES", value_delimiter = ',')]
        focus_nodes: Vec<String>,
    },
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckNode {
    /// Where the container runtime looks for networks.
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/cni/net.d")]
    pub config_dir: PathBuf,
    /// Where it looks for CNI plugins.
    #[arg(long, value_name = "DIRECTORY", default_value = "/opt/cni/bin")]
    pub plugin_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// What to do about policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// On how many nodes each policy is programmed, and what of it is refused.
    Status {
        /// Only this one: `gnp/NAME`, `np/NAMESPACE/NAME` or another that the list names.
        policy: Option<PolicyId>,
        /// How to print it.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
}

/// What to do about addresses.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// How full the pools are, or what is known of one address.
    Show(Show),
    /// Everything that is wrong, with the evidence; changes nothing, and locks nothing.
    Check(Check),
    /// Repair what the check finds: show the plan, ask, write, and keep a way back.
    Repair(Repair),
    /// Give addresses back that nobody uses.
    Release(Release),
    /// Who owns an address, since when, and by which objects.
    Explain {
        /// The address.
        addr: IpAddr,
        /// How to print it.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
    /// When pools and nodes will run out of addresses.
    Forecast(Forecast),
    /// How addresses are assigned throughout the cluster.
    Configure(Configure),
    /// Split a pool into equal parts; the datastore must be locked.
    Split(Split),
}

/// Arguments of `ipam show`.
#[derive(Args, Debug)]
pub struct Show {
    /// Only what is known of this address.
    #[arg(long, value_name = "IP", conflicts_with_all = ["show_blocks", "show_borrowed", "show_configuration"])]
    pub ip: Option<IpAddr>,
    /// Also the blocks of the pools.
    #[arg(long)]
    pub show_blocks: bool,
    /// The addresses that nodes have from other nodes' blocks.
    #[arg(long, conflicts_with_all = ["show_blocks", "show_configuration"])]
    pub show_borrowed: bool,
    /// The configuration.
    #[arg(long, conflicts_with = "show_blocks")]
    pub show_configuration: bool,
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Arguments of `ipam check`.
#[derive(Args, Debug)]
pub struct Check {
    /// List every address that was checked.
    #[arg(long)]
    pub show_all_ips: bool,
    /// List the addresses with a problem; they are listed anyway.
    #[arg(long)]
    pub show_problem_ips: bool,
    /// Write a report to this file, for `ipam release --from-report`.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, default_value = "table")]
    pub format: Format,
    /// The kubeconfig, instead of that of the configuration.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Arguments of `ipam repair`.
#[derive(Args, Debug)]
pub struct Repair {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Show the plan, and write nothing.
    #[arg(long, conflicts_with_all = ["yes", "undo"])]
    pub dry_run: bool,
    /// Where the way back is written; by default into this directory, with the time in its name.
    #[arg(long, value_name = "FILE", conflicts_with = "undo")]
    pub undo_file: Option<PathBuf>,
    /// Take a repair back, as far as nobody has used what it freed.
    #[arg(long, value_name = "FILE")]
    pub undo: Option<PathBuf>,
    /// A report of `ipam check -o`, older than the grace period: then there is no need to wait.
    #[arg(long, value_name = "FILE", conflicts_with = "undo")]
    pub from_report: Option<PathBuf>,
    /// How long, in seconds, what looks wrong must last before it is repaired.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,
    /// Repair also if it would free more addresses than looks sane, after a look at the plan.
    #[arg(long)]
    pub force: bool,
    /// How to print the plan.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// Arguments of `ipam release`.
#[derive(Args, Debug)]
pub struct Release {
    /// The address.
    #[arg(
        long,
        value_name = "IP",
        conflicts_with = "from_report",
        required_unless_present = "from_report"
    )]
    pub ip: Option<IpAddr>,
    /// Reports of `ipam check`; what all of them call a leak is released, if it still is one.
    #[arg(long, value_name = "FILE")]
    pub from_report: Vec<PathBuf>,
    /// Release also what is in use, or what a circuit breaker holds back.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `ipam forecast`.
#[derive(Args, Debug)]
pub struct Forecast {
    /// An earlier forecast, printed with `-o json`: growth is then measured, not estimated.
    #[arg(long, value_name = "FILE")]
    pub since: Option<PathBuf>,
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Arguments of `ipam configure`.
#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
#[group(id = "setting", required = true, multiple = true)]
pub struct Configure {
    /// What to do instead of changing something.
    #[command(subcommand)]
    pub task: Option<ConfigureTask>,
    /// Whether nodes take addresses only from blocks of their own.
    #[arg(long, value_name = "true|false", action = ArgAction::Set)]
    pub strictaffinity: Option<bool>,
    /// The most blocks that a node may own; 0 is the default of 20.
    #[arg(long, value_name = "NUMBER")]
    pub max_blocks_per_host: Option<u32>,
    /// Whether virtual machines keep their addresses: Enabled or Disabled.
    #[arg(long, value_name = "MODE", value_parser = ["Enabled", "Disabled"])]
    pub kubevirt_ip_persistence: Option<String>,
    /// How long an address rests after its release, 0 to 1200.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(0..=1200))]
    pub ip_cooldown_seconds: Option<u16>,
}

/// What to do instead of changing the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigureTask {
    /// Print the configuration.
    Show {
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
}

/// Arguments of `ipam split`.
#[derive(Args, Debug)]
pub struct Split {
    /// Into how many parts; a power of two.
    pub number: u32,
    /// The range of the pool.
    #[arg(long, required_unless_present = "name", conflicts_with = "name")]
    pub cidr: Option<Cidr>,
    /// The name of the pool.
    #[arg(long)]
    pub name: Option<String>,
}

/// What to do about the datastore.
#[derive(Debug, Subcommand)]
pub enum Datastore {
    /// Stop the cluster's use of the datastore for a while, and let it go on.
    Migrate {
        /// Which.
        #[command(subcommand)]
        task: Migrate,
    },
}

/// The lock of the datastore.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Subcommand)]
pub enum Migrate {
    /// Lock: pods get no addresses and nodes apply no changes until it is unlocked.
    Lock,
    /// Unlock.
    Unlock,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|error: telemetry::logging::UnknownLevel| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn command_lines_for_calicos_program_are_taken() {
        for line in [
            "calicoctl version --client",
            "calicoctl version --allow-version-mismatch",
            "calicoctl ipam show",
            "calicoctl ipam show --ip=192.168.1.2",
            "calicoctl ipam show --ip fd80:24e2:f998:72d7::2",
            "calicoctl ipam show --show-blocks --config=/etc/calico/other.cfg",
            "calicoctl ipam show --show-borrowed",
            "calicoctl ipam show --show-configuration",
            "calicoctl ipam configure --strictaffinity=true --max-blocks-per-host=4",
            "calicoctl ipam configure --ip-cooldown-seconds=60 --kubevirt-ip-persistence=Disabled",
            "calicoctl ipam configure show",
            "calicoctl ipam check --show-all-ips -o report.json",
            "calicoctl ipam check --show-problem-ips --kubeconfig=/k",
            "calicoctl ipam release --ip=192.168.1.2",
            "calicoctl ipam release --from-report=r1 --from-report=r2 --force",
            "calicoctl ipam repair --yes --grace=0 --undo-file=u",
            "calicoctl ipam repair --undo=u",
            "calicoctl ipam explain 10.0.0.1 -o json",
            "calicoctl ipam split 4 --cidr=192.168.0.0/16",
            "calicoctl ipam split --name=pool 4 -c /etc/calico/calicoctl.cfg",
            "calicoctl ipam forecast --since=earlier.json -o yaml",
            "calicoctl -l panic --context=a ipam show",
            "calicoctl datastore migrate lock",
            "calicoctl adopt --check",
            "calicoctl adopt --remove -o json",
            "calicoctl node status",
            "calicoctl node diags --log-dir=/var/log/calico",
            "calicoctl node checksystem --kernel-config=/boot/config",
            "calicoctl node checksystem -f /boot/config",
            "calicoctl check",
            "calicoctl check --config-dir=/etc/cni/net.d --plugin-dir=/opt/cni/bin -o json",
            "calicoctl policy status",
            "calicoctl policy status np/shop/web -o json",
            "calicoctl completion bash",
        ] {
            if let Err(error) = parsed(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "calicoctl",
            "calicoctl adopt",
            "calicoctl adopt --check --remove",
            "calicoctl ipam show --ip=1.2.3",
            "calicoctl ipam show --ip=1.2.3.4 --show-blocks",
            "calicoctl ipam release",
            "calicoctl ipam release --ip=1.2.3.4 --from-report=r",
            "calicoctl ipam repair --dry-run --yes",
            "calicoctl ipam split 4",
            "calicoctl ipam split 4 --cidr=10.0.0.1/8",
            "calicoctl ipam configure",
            "calicoctl ipam configure --strictaffinity=maybe",
            "calicoctl ipam configure --ip-cooldown-seconds=1201",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
