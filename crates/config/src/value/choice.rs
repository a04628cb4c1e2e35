//! Settings that are one of a few words.

use super::Setting;

/// Declares an enumeration; the first word of each variant is how it is written,
/// the others are understood too, all without regard to case.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)+ }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl Setting for $name {
            fn from_text(text: &str) -> Option<Self> {
                let is = |word: &str| text.eq_ignore_ascii_case(word);
                $(if is($word) $(|| is($alias))* { return Some(Self::$variant); })+
                None
            }

            fn allowed() -> String {
                [$(concat!("`", $word, "`")),+].join(", ")
            }

            fn show(&self) -> String {
                match self { $(Self::$variant => $word,)+ }.to_owned()
            }
        }
    )+};
}

choices! {
    /// On or off, in the words of newer settings.
    Switch {
        /// On.
        Enabled = "Enabled" | "true",
        /// Off.
        Disabled = "Disabled" | "false",
    }

    /// How much is logged.
    LogSeverity {
        /// Nothing.
        None = "None" | "off",
        /// Every detail.
        Trace = "Trace",
        /// What developers want to know.
        Debug = "Debug",
        /// What happens.
        Info = "Info",
        /// What may be wrong.
        Warning = "Warning" | "warn",
        /// What is wrong.
        Error = "Error",
        /// What ends the program.
        Fatal = "Fatal" | "critical" | "panic",
    }

    /// When packets between nodes are encapsulated.
    EncapsulationMode {
        /// Never.
        Never = "Never" | "Off" | "",
        /// Always.
        Always = "Always",
        /// Between nodes of different subnets.
        CrossSubnet = "CrossSubnet" | "cross-subnet",
    }

    /// What brings routes to other nodes.
    Backend {
        /// BGP.
        Bird = "bird",
        /// VXLAN alone.
        Vxlan = "vxlan",
        /// Nothing: somebody else does.
        None = "none",
    }

    /// Whether nftables is used.
    NftablesMode {
        /// As kube-proxy does.
        Auto = "Auto",
        /// Always.
        Enabled = "Enabled",
        /// Never.
        Disabled = "Disabled",
    }

    /// Which iptables program is used.
    IptablesBackend {
        /// The one with more rules.
        Auto = "Auto",
        /// The old kernel interface.
        Legacy = "Legacy",
        /// The translation to nftables.
        Nft = "NFT",
    }

    /// Where our jump rules go in a chain.
    ChainInsertMode {
        /// First.
        Insert = "Insert",
        /// Last.
        Append = "Append",
    }

    /// What happens to packets from a workload to its host, after policy.
    EndpointAction {
        /// They are dropped.
        Drop = "Drop",
        /// The host's own rules decide.
        Return = "Return",
        /// They pass.
        Accept = "Accept",
    }

    /// What happens to packets that policy allows.
    PassAction {
        /// They pass at once.
        Accept = "Accept",
        /// Later rules may still refuse them.
        Return = "Return",
    }

    /// What happens to packets that policy denies.
    DropAction {
        /// They vanish.
        Drop = "Drop",
        /// The sender is told.
        Reject = "Reject",
    }

    /// Where routes to pods are computed from.
    RouteSource {
        /// Blocks and borrowed addresses.
        CalicoIpam = "CalicoIPAM",
        /// Each workload's addresses.
        WorkloadIps = "WorkloadIPs",
    }

    /// Which routes to other nodes the daemon programs without BGP's help.
    ProgramClusterRoutes {
        /// Those through IP-in-IP.
        EnabledIpipOnly = "EnabledIPIPOnly",
        /// All.
        Enabled = "Enabled",
        /// None: BGP does.
        Disabled = "Disabled",
    }

    /// Whether workloads may send from addresses that are not theirs.
    SourceSpoofing {
        /// Never.
        Disabled = "Disabled",
        /// Those that an annotation grants.
        Any = "Any",
    }

    /// What happens to packets to service addresses that nobody has.
    ServiceLoopPrevention {
        /// They vanish.
        Drop = "Drop",
        /// The sender is told.
        Reject = "Reject",
        /// They loop.
        Disabled = "Disabled",
    }

    /// What happens to connections that policy allowed once and no longer allows.
    DeniedConnections {
        /// They go on until they end by themselves.
        Keep = "Keep",
        /// They are ended.
        End = "End",
    }

    /// Destinations that outgoing packets are not masqueraded for.
    NatExclusions {
        /// Those in pools.
        IpPoolsOnly = "IPPoolsOnly",
        /// Those in pools, and nodes.
        IpPoolsAndHostIps = "IPPoolsAndHostIPs",
    }

    /// What AWS checks of a packet's addresses.
    SourceDestinationCheck {
        /// What it is set to.
        DoNothing = "DoNothing",
        /// The check is switched on.
        Enable = "Enable",
        /// The check is switched off.
        Disable = "Disable",
    }

    /// Whether a local socket receives flow logs.
    LocalReporter {
        /// It does.
        Enabled = "Enabled",
        /// It does not.
        Disabled = "Disabled",
    }

    /// For what the daemon answers ARP on the local subnet.
    L2Reachability {
        /// Nothing.
        Disabled = "Disabled",
        /// Pods and load balancer addresses.
        PodsAndLoadBalancers = "PodsAndLoadBalancers",
    }

    /// How the eBPF dataplane forwards service traffic from outside.
    Mode {
        /// Through a tunnel and back.
        Tunnel = "Tunnel",
        /// Straight back from the backend's node.
        Dsr = "DSR",
    }
}
