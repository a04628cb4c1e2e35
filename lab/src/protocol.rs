//! What the lab and the agent of a node say to each other: lines of JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A numbered line to the agent; the answer carries the number back.
#[derive(Debug, Deserialize, Serialize)]
pub struct Numbered<T> {
    /// The number.
    pub id: u64,
    /// What is said.
    pub body: T,
}

/// What the agent is to do in its node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Request {
    /// Run a program to its end and return what it printed.
    Run {
        /// The command line.
        command: Vec<String>,
    },
    /// Start a program in the background.
    Start {
        /// What to call it from now on.
        name: String,
        /// The command line.
        command: Vec<String>,
        /// Additional environment.
        env: BTreeMap<String, String>,
    },
    /// End a program that was started.
    End {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// Return the process id of a program that was started and still runs.
    Pid {
        /// Its name.
        name: String,
    },
    /// Make a pod's network namespace and attach it: CNI ADD.
    Add {
        /// Which.
        pod: Pod,
    },
    /// Detach a pod, CNI DEL, and remove its namespace.
    Del {
        /// Which.
        pod: Pod,
    },
    /// Ask the plugins if a pod is attached as it was: CNI CHECK.
    Check {
        /// Which.
        pod: Pod,
    },
    /// Make a pod's network namespace before it is attached.
    Prepare {
        /// The container id of the pod.
        container: String,
    },
    /// Something about packets of pods.
    Traffic(Traffic),
}

/// What packets pods of a node are to send and answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Traffic {
    /// Try to reach all targets from each of this node's pods.
    Probe {
        /// Addresses of pods.
        targets: Vec<IpAddr>,
        /// How long to wait for answers.
        within_ms: u64,
    },
    /// Let a pod answer on more ports.
    Serve {
        /// The container id of the pod.
        container: String,
        /// The ports.
        ports: Vec<u16>,
    },
    /// Have a pod answer no more, as it is gone.
    Silence {
        /// The container id of the pod.
        container: String,
    },
    /// Knock all the time from a pod at another, which should not answer.
    StartKnocking {
        /// The container id of the pod.
        container: String,
        /// Where to.
        target: IpAddr,
    },
    /// End that and return what came of it.
    StopKnocking {
        /// The container id of the pod.
        container: String,
        /// Where to.
        target: IpAddr,
    },
    /// Make attempts from several pods at once, each over a new connection.
    Try {
        /// Who tries what.
        trials: Vec<Trial>,
        /// How long to wait for those that should come through.
        within_ms: u64,
    },
    /// Talk to a target all the time from a pod, and write down what is lost.
    StartFlow {
        /// The container id of the pod.
        container: String,
        /// Where to.
        target: IpAddr,
    },
    /// End the flow and return its ledger.
    StopFlow {
        /// The container id of the pod.
        container: String,
        /// Where to.
        target: IpAddr,
    },
}

/// A pod as the container runtime knows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID in the API.
    pub uid: String,
    /// Its sandbox.
    pub container: String,
}

/// What the agent answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    /// Done.
    Done,
    /// What a program printed.
    Text(String),
    /// A process id, unless it has ended.
    Pid(Option<i32>),
    /// A pod is attached.
    Attached(Attached),
    /// What was reached.
    Reached(Vec<Reached>),
    /// What came through, one for each trial.
    Tried(Vec<Vec<Attempt>>),
    /// What came of knocking.
    Knocks(Knocks),
    /// What a flow saw.
    Ledger(Ledger),
    /// Not done, and why.
    Failed(String),
}

/// The outcome of a CNI call that succeeded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Attached {
    /// The last plugin's result.
    pub result: serde_json::Value,
    /// The pod's addresses.
    pub addrs: Vec<IpAddr>,
    /// How long the plugins took.
    pub took_us: u64,
}

/// What a pod is to try, and what is thought to come of it.
///
/// The order and the expectation decide only when to stop: a trial ends when all of `passing`
/// has been answered, and a moment more for answers to `stopped`, which is sent first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Trial {
    /// The container id of the pod.
    pub container: String,
    /// What should be dropped.
    pub stopped: Vec<Attempt>,
    /// What should come through.
    pub passing: Vec<Attempt>,
}

/// A question to a pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Attempt {
    /// An address of the pod.
    pub to: IpAddr,
    /// How it is asked.
    pub transport: Transport,
    /// The port; zero for those without.
    pub port: u16,
}

/// How a question travels.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Transport {
    /// A connection that is opened.
    Tcp,
    /// A datagram and its echo.
    Udp,
    /// A question for an association and its answer.
    Sctp,
    /// Ping.
    Icmp,
}

/// What came of knocking: a datagram every two milliseconds, a new connection every twenty.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Knocks {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams whose echo came back.
    pub echoed: u64,
    /// Connections that were opened.
    pub connected: u64,
}

/// What one pod reached.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reached {
    /// The pod's container id.
    pub container: String,
    /// Targets that answered to a ping.
    pub ping: Vec<IpAddr>,
    /// Targets that answered over TCP with the address they should have seen us by.
    pub tcp: Vec<IpAddr>,
    /// The same over UDP.
    pub udp: Vec<IpAddr>,
}

/// What happened to a continuous flow: a datagram every ten milliseconds and one TCP connection.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Ledger {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams whose echo came back.
    pub received: u64,
    /// The longest time without an echo.
    pub longest_gap_ms: u64,
    /// The time from the last echo of a datagram to the end.
    pub silent_ms: u64,
    /// Echoes over the TCP connection.
    pub tcp_echoes: u64,
    /// The time from the last of them to the end.
    pub tcp_silent_ms: u64,
    /// Why the TCP connection ended, if it did.
    pub tcp_error: Option<String>,
}

impl Ledger {
    /// Returns how many datagrams were lost.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}
