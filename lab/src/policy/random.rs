//! Sets of policies that nobody thought of, one for each seed.

use serde_json::{Map, Value, json};

use super::case::Case;
use super::world;
use crate::Error;
use crate::cluster::Cluster;

/// Selectors of pods, of which some match nobody.
const SELECTORS: [&str; 12] = [
    "all()",
    "app == 'web'",
    "app == 'db'",
    "app != 'job'",
    "has(tier)",
    "!has(canary)",
    "tier == 'front' && canary == 'yes'",
    "app in {'job', 'cache'}",
    "app not in {'web', 'cache'}",
    "pcsa.role == 'store' || app == 'job'",
    "kind == 'friend'",
    "app == 'nobody'",
];
/// Selectors of namespaces.
const NAMESPACES: [&str; 5] =
    ["team == 'red'", "env == 'prod'", "team != 'blue'", "all()", "env == 'none'"];
/// Networks, by pods' addresses and by pools.
const NETS: [&str; 8] = [
    "$red/web.v4/32",
    "$blue/db.v4/32",
    "$green/job.v6/128",
    "$blue/web.v6/128",
    "10.244.0.0/16",
    "fd00:10:244::/48",
    "0.0.0.0/0",
    "192.0.2.0/24",
];
/// Ports that policies may name.
const PORTS: [&str; 8] =
    ["80", "8080", "\"web\"", "\"admin\"", "\"talk\"", "\"link\"", "\"1:80\"", "\"81:65535\""];
const TEAMS: [&str; 3] = ["red", "blue", "green"];

/// Makes the case of a seed; what it should lead to is not written.
///
/// # Errors
///
/// [`Error::Wrong`] if an address of a pod is missing.
pub fn case(seed: u64, cluster: &Cluster) -> Result<Case, Error> {
    let mut dice = Dice(seed);
    let mut apply = Vec::new();
    let has_tier = dice.one_in(2);
    if has_tier {
        let action = dice.pick(&["Deny", "Pass"]);
        apply.push(json!({"tier": "early", "spec": {"order": 10, "defaultAction": action}}));
    }
    if dice.one_in(2) {
        let nets = dice.some(&NETS, 3);
        apply.push(json!({"gset": "s", "labels": {"kind": "friend"}, "spec": {"nets": nets}}));
    }
    if dice.one_in(3) {
        let (team, nets) = (dice.pick(&TEAMS), dice.some(&NETS, 3));
        let labels = json!({"kind": "friend", "app": "web"});
        apply.push(json!({"set": format!("{team}/s"), "labels": labels, "spec": {"nets": nets}}));
    }
    for number in 0..dice.below(6).saturating_add(1) {
        apply.push(dice.policy(number, has_tier));
    }
    let text = world::with_addrs(&Value::Array(apply).to_string(), cluster);
    let apply: Vec<Map<String, Value>> = serde_json::from_str(&text).map_err(Error::wrong)?;
    Ok(Case { name: format!("seed {seed}"), apply, expect: Vec::new() })
}

/// What may happen to a cluster.
#[derive(Clone, Debug)]
pub enum Happening {
    /// An object is made; the map is as in a [`Case`].
    Made(Box<Map<String, Value>>),
    /// One of those that were made is removed, by its place among them.
    Removed(usize),
    /// Labels of a pod or a namespace are merged with these.
    Relabelled {
        /// The object, with no more than its names.
        object: Value,
        /// The labels; null removes one.
        labels: Value,
    },
}

/// Happenings that follow from a seed, without end.
#[derive(Debug)]
pub struct History {
    dice: Dice,
    number: usize,
}

impl History {
    /// Begins a history.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), number: 0 }
    }

    /// Returns what happens next in a cluster where `made` objects were made and not removed.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if an address of a pod is missing.
    pub fn next(&mut self, made: usize, cluster: &Cluster) -> Result<Happening, Error> {
        self.number = self.number.saturating_add(1);
        let dice = &mut self.dice;
        // More is made than removed, until there is a dozen.
        match dice.below(8) {
            0 | 1 => Ok(dice.relabelling()),
            2 | 3 if made > 0 => Ok(Happening::Removed(dice.below(made))),
            _ if made >= 12 => Ok(Happening::Removed(dice.below(made))),
            4 => {
                let nets = dice.some(&NETS, 3);
                let labels = json!({"kind": dice.pick(&["friend", "foe"])});
                let name = format!("s{}", self.number);
                made_of(&json!({"gset": name, "labels": labels, "spec": {"nets": nets}}), cluster)
            }
            _ => made_of(&dice.policy(self.number, true), cluster),
        }
    }
}

fn made_of(object: &Value, cluster: &Cluster) -> Result<Happening, Error> {
    let text = world::with_addrs(&object.to_string(), cluster);
    Ok(Happening::Made(Box::new(serde_json::from_str(&text).map_err(Error::wrong)?)))
}

/// Numbers that look random (`SplitMix64`, Steele et al. 2014).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let number = self.next().checked_rem(end).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = self.below(from.len());
        from.get(index).copied().unwrap_or_default()
    }

    /// Returns one to `most` of them.
    fn some(&mut self, from: &[&str], most: usize) -> Vec<String> {
        let count = self.below(most).saturating_add(1);
        (0..count).map(|_| self.pick(from).to_owned()).collect()
    }

    fn ports(&mut self) -> Vec<Value> {
        let texts = self.some(&PORTS, 3);
        texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
    }

    fn policy(&mut self, number: usize, has_tier: bool) -> Value {
        let team = self.pick(&TEAMS);
        if self.one_in(4) {
            return json!({"knp": format!("{team}/p{number}"), "spec": self.kubernetes()});
        }
        let mut spec = json!({"selector": self.pick(&SELECTORS)});
        let directions = self.pick(&["ingress", "egress", "ingress egress", "none"]);
        let set = |spec: &mut Value, key: &str, value: Value| {
            if let Some(fields) = spec.as_object_mut() {
                fields.insert(key.to_owned(), value);
            }
        };
        for direction in ["ingress", "egress"] {
            if directions.contains(direction) {
                let count = self.below(4).saturating_add(1);
                let rules = (0..count).map(|_| self.rule()).collect();
                set(&mut spec, direction, Value::Array(rules));
            }
        }
        if !self.one_in(3) {
            set(&mut spec, "order", json!(self.below(4).saturating_mul(600)));
        }
        if has_tier && self.one_in(2) {
            set(&mut spec, "tier", json!("early"));
        }
        if self.one_in(2) {
            return json!({"np": format!("{team}/p{number}"), "spec": spec});
        }
        if self.one_in(2) {
            set(&mut spec, "namespaceSelector", json!(self.pick(&NAMESPACES)));
        }
        json!({"gnp": format!("p{number}"), "spec": spec})
    }

    /// Changes labels that selectors speak of.
    fn relabelling(&mut self) -> Happening {
        if self.one_in(3) {
            let metadata = json!({"name": self.pick(&TEAMS)});
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
            let labels = json!({"env": self.pick(&["prod", "dev"]), "team": self.pick(&TEAMS)});
            return Happening::Relabelled { object, labels };
        }
        let pod = self.pick(&["red/web", "red/db", "blue/cache", "green/job"]);
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        let metadata = json!({"name": name, "namespace": namespace});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
        let tier = [Value::Null, json!("front"), json!("back")];
        let tier = tier.get(self.below(3)).cloned().unwrap_or_default();
        let app = self.pick(&["web", "db", "job", "cache"]);
        Happening::Relabelled { object, labels: json!({"app": app, "tier": tier}) }
    }

    fn rule(&mut self) -> Value {
        let action = self.pick(&["Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"]);
        let protocol = self.pick(&["", "", "TCP", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6"]);
        let mut rule = json!({"action": action});
        if let Some(fields) = rule.as_object_mut() {
            let has_ports = ["TCP", "UDP", "SCTP"].contains(&protocol);
            if !protocol.is_empty() {
                fields.insert("protocol".to_owned(), json!(protocol));
            } else if self.one_in(4) {
                fields.insert("notProtocol".to_owned(), json!(self.pick(&["TCP", "UDP", "SCTP"])));
            }
            if !self.one_in(3) {
                fields.insert("source".to_owned(), self.entity(false));
            }
            if has_ports || self.one_in(3) {
                fields.insert("destination".to_owned(), self.entity(has_ports));
            }
        }
        rule
    }

    fn entity(&mut self, has_ports: bool) -> Value {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        match self.below(5) {
            0 => put("selector", json!(self.pick(&SELECTORS))),
            1 => {
                put("namespaceSelector", json!(self.pick(&NAMESPACES)));
                if self.one_in(2) {
                    put("selector", json!(self.pick(&SELECTORS)));
                }
            }
            2 => put("nets", json!(self.some(&NETS, 3))),
            3 => put("serviceAccounts", json!({"names": self.some(&["web", "db", "job"], 2)})),
            _ => {}
        }
        if self.one_in(5) {
            put("notSelector", json!(self.pick(&SELECTORS)));
        }
        if self.one_in(5) {
            put("notNets", json!(self.some(&NETS, 2)));
        }
        if has_ports && !self.one_in(3) {
            put("ports", Value::Array(self.ports()));
        }
        if has_ports && self.one_in(4) {
            put("notPorts", Value::Array(self.ports()));
        }
        Value::Object(fields)
    }

    /// Makes a spec of Kubernetes' `NetworkPolicy`.
    fn kubernetes(&mut self) -> Value {
        let labels =
            [json!({}), json!({"app": "web"}), json!({"app": "db"}), json!({"tier": "back"})];
        let pods = |dice: &mut Self| {
            let index = dice.below(labels.len());
            json!({"matchLabels": labels.get(index)})
        };
        let (chosen, peer) = (pods(self), pods(self));
        let peer = match self.below(4) {
            0 => json!({"podSelector": peer}),
            1 => json!({"namespaceSelector": {"matchLabels": {"env": "prod"}}}),
            2 => {
                json!({"namespaceSelector": {"matchLabels": {"team": self.pick(&TEAMS)}}, "podSelector": peer})
            }
            _ => json!({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["$green/web.v4/32"]}}),
        };
        let port = match self.below(4) {
            0 => json!({"port": 80}),
            1 => json!({"port": "admin"}),
            2 => json!({"protocol": "UDP"}),
            _ => json!({"port": 79, "endPort": 90, "protocol": "UDP"}),
        };
        let ports = if self.one_in(2) { vec![port] } else { Vec::new() };
        match self.below(3) {
            0 => json!({"podSelector": chosen, "policyTypes": ["Ingress"]}),
            1 => json!({"podSelector": chosen, "ingress": [{"from": [peer], "ports": ports}]}),
            _ => json!({
                "podSelector": chosen,
                "policyTypes": ["Egress"],
                "egress": [{"to": [peer], "ports": ports}],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_policies_again() {
        let policies = |seed| {
            let mut dice = Dice(seed);
            (0..20).map(|number| dice.policy(number, true)).collect::<Vec<_>>()
        };
        assert_eq!(policies(1), policies(1));
        assert_ne!(policies(1), policies(2));
    }
}
