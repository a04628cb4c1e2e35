//! The command line of `calico-node`, with the single dashes that Calico's manifests use.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::why::{Party, Traffic};

/// The daemon of one node: start-up, routes, policy, BGP.
///
/// Without arguments it runs until SIGTERM, and then leaves routes and peers
/// as they are. Its settings are environment variables and FelixConfiguration
/// objects.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of Calico's command line")]
#[derive(Debug, Default, Parser)]
#[command(
    name = "calico-node",
    version,
    after_help = "Flags may be written with one dash, as in -felix-ready."
)]
pub(crate) struct Arguments {
    /// Exit with 0 if routes and policy are being served.
    #[arg(long)]
    pub(crate) felix_live: bool,
    /// Exit with 0 if routes and policy are in sync with the datastore.
    #[arg(long)]
    pub(crate) felix_ready: bool,
    /// Exit with 0 if the BGP speaker runs.
    #[arg(long)]
    pub(crate) bird_live: bool,
    /// Exit with 0 if the BGP peers are connected.
    #[arg(long)]
    pub(crate) bird_ready: bool,
    /// The same as --bird-live, for IPv6.
    #[arg(long)]
    pub(crate) bird6_live: bool,
    /// The same as --bird-ready, for IPv6.
    #[arg(long)]
    pub(crate) bird6_ready: bool,
    /// Tell Kubernetes that this node's network is about to stop.
    #[arg(long)]
    pub(crate) shutdown: bool,
    /// What to do instead of running.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of running.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the running daemon about BGP.
    Bgp {
        #[command(subcommand)]
        query: BgpQuery,
    },
    /// Ask this node's kernel about policy.
    Policy {
        #[command(subcommand)]
        query: PolicyQuery,
    },
    /// Put the CNI plugins and their configuration on the node, or take them away.
    ///
    /// For an init container of the daemon; its settings are environment variables, as
    /// `CNI_NETWORK_CONFIG`. `install` and `install-cni` are names of this program that do it.
    InstallCni {
        /// Take them away: the configuration first, then the credentials and our plugins.
        #[arg(long)]
        remove: bool,
    },
    /// Change what this node encrypts with.
    Wireguard {
        #[command(subcommand)]
        task: WireguardTask,
    },
    /// Remove all that calico-node has made on this node, and restore what it found.
    ///
    /// The CNI configuration and plugins are removed by those who installed them.
    Uninstall {
        /// Only say what would be removed.
        #[arg(long)]
        check: bool,
        /// Also while pods are attached, which lose their network.
        #[arg(long)]
        with_pods: bool,
    },
    /// Explain what becomes of a connection, and by which rule.
    ///
    /// At both ends and for every address family: the tiers and policies that
    /// apply, each rule that was looked at and why it did or did not match,
    /// and the verdict. It is what the datastore says should be.
    #[command(after_help = "Example: calico-node why shop/web shop/db tcp/5432")]
    Why {
        /// Who sends: POD, NAMESPACE/POD or hostendpoint:NAME.
        from: Party,
        /// Who receives.
        to: Party,
        /// What is sent: tcp/443, udp/53, sctp/9, icmp, icmpv6, or a protocol's number.
        traffic: Traffic,
    },
}

/// What to do about WireGuard.
#[derive(Debug, Subcommand)]
pub(crate) enum WireguardTask {
    /// Make new keys, and wait until the other nodes use them.
    ///
    /// Nothing is lost by it, up to 128 packets for each node in the moment that it takes the others
    /// to hear of the key.
    Rotate,
}

/// What to ask about policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyQuery {
    /// Show how many packets and bytes each rule has seen since it was written.
    ///
    /// Packets of connections that are known are not counted: policy does not see them.
    Counters,
}

/// What to ask about BGP.
#[derive(Debug, Subcommand)]
pub(crate) enum BgpQuery {
    /// Show the sessions: peer, state, since when, routes, last error.
    Status(Form),
    /// Show the peers alone.
    Peers(Form),
    /// Show the routes that were learned and their next hops.
    Routes(Form),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Form {
    /// As JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// As what.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Form {
    /// Returns what was asked for, in either way.
    pub(crate) const fn output(self) -> Output {
        if self.json { Output::Json } else { self.output }
    }
}

/// A form of answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// A health question of the command line, in the words of the health endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Probe {
    /// Does it run?
    Liveness,
    /// Does it serve?
    Readiness,
}

impl Arguments {
    /// Parses `arguments`, the program's name first.
    ///
    /// # Errors
    ///
    /// What to print, and the exit code to end with; also for `--help` and `--version`.
    pub(crate) fn parse_from(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let mut arguments = arguments.into_iter();
        let program = arguments.next().unwrap_or_default();
        let called = std::path::Path::new(&program).file_name().unwrap_or_default();
        let by_name = INSTALLERS.iter().any(|name| called == *name);
        let command = by_name.then(|| OsString::from("install-cni"));
        let words = std::iter::once(program).chain(command);
        Self::try_parse_from(words.chain(arguments.map(with_two_dashes)))
    }

    /// Returns the health questions that were asked.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let is_live = self.felix_live || self.bird_live || self.bird6_live;
        let is_ready = self.felix_ready || self.bird_ready || self.bird6_ready;
        [(is_live, Probe::Liveness), (is_ready, Probe::Readiness)]
            .into_iter()
            .filter_map(|(is_asked, probe)| is_asked.then_some(probe))
            .collect()
    }
}

/// The names by which this program installs the CNI plugins, as in Calico's manifests.
const INSTALLERS: [&str; 2] = ["install", "install-cni"];

/// Turns `-felix-ready` into `--felix-ready`; short flags such as `-v` stay.
///
/// `-v` is the version, as in Calico; clap's own short form is `-V`.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-v") => "--version".into(),
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            format!("-{text}").into()
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split_whitespace().map(OsString::from);
        Arguments::parse_from([OsString::from("calico-node")].into_iter().chain(words))
    }

    #[test]
    fn the_flags_of_calicos_manifests_are_understood() {
        let arguments = parse("-felix-live -bird-live").unwrap();
        assert_eq!(arguments.probes(), [Probe::Liveness]);
        let arguments = parse("-felix-ready -bird-ready").unwrap();
        assert_eq!(arguments.probes(), [Probe::Readiness]);
        assert!(parse("-shutdown").unwrap().shutdown);
        assert_eq!(parse("-v").unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
    }

    #[test]
    fn by_another_name_it_installs() {
        for line in ["/opt/cni/bin/install", "install-cni", "calico-node install-cni"] {
            let words = line.split_whitespace().map(OsString::from);
            let arguments = Arguments::parse_from(words).unwrap();
            let command = arguments.command;
            assert!(matches!(command, Some(Command::InstallCni { remove: false })), "{line}");
        }
        assert!(parse("").unwrap().command.is_none());
    }

    #[test]
    fn without_arguments_it_runs() {
        let arguments = parse("").unwrap();
        assert!(arguments.probes().is_empty() && arguments.command.is_none());
    }

    #[test]
    fn unknown_words_are_refused() {
        for wrong in ["-felix-reddy", "run", "bgp", "bgp statu", "why a b", "why a b tcp"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
