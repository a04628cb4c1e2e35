//! Who reaches whom: every pod asks every pod, by ping, TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::Error;
use crate::cluster::{Cluster, RunningPod};
use crate::protocol::Reached;

/// What each pod reached of what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Matrix {
    names: Vec<String>,
    targets: Vec<Vec<IpAddr>>,
    /// By pod: the addresses that answered in all ways.
    reached: Vec<BTreeSet<IpAddr>>,
}

impl Matrix {
    /// Probes from all pods to all pods at once; `within` is how long routes may take to arrive.
    ///
    /// # Errors
    ///
    /// [`Error`] if a node's agent fails; a pod that is not reached is no error.
    pub fn probe(cluster: &Cluster, within: Duration) -> Result<Self, Error> {
        let targets: Vec<IpAddr> =
            cluster.pods.iter().flat_map(RunningPod::addrs).copied().collect();
        let within = crate::patience::on_this_machine(within);
        let within = u64::try_from(within.as_millis()).map_err(Error::wrong)?;
        let reports = std::thread::scope(|scope| {
            let targets = &targets;
            let probes: Vec<_> = cluster
                .nodes
                .iter()
                .map(|node| scope.spawn(move || node.probe(targets, within)))
                .collect();
            let join = |probe: std::thread::ScopedJoinHandle<'_, Result<Vec<Reached>, Error>>| {
                probe.join().unwrap_or_else(|_| Err(Error::wrong("a probe panicked")))
            };
            probes.into_iter().map(join).collect::<Result<Vec<_>, Error>>()
        })?;
        let mut by_container: BTreeMap<String, BTreeSet<IpAddr>> = reports
            .into_iter()
            .flatten()
            .map(|report| {
                let udp: BTreeSet<IpAddr> = report.udp.into_iter().collect();
                let ping: BTreeSet<IpAddr> = report.ping.into_iter().collect();
                let is_reached = |addr: &IpAddr| udp.contains(addr) && ping.contains(addr);
                (report.container, report.tcp.into_iter().filter(is_reached).collect())
            })
            .collect();
        let reached =
            |pod: &RunningPod| by_container.remove(&pod.pod.container).unwrap_or_default();
        Ok(Self {
            names: cluster.pods.iter().map(|pod| pod.pod.name.clone()).collect(),
            targets: cluster.pods.iter().map(|pod| pod.addrs().to_vec()).collect(),
            reached: cluster.pods.iter().map(reached).collect(),
        })
    }

    /// Returns how many cells there are, one per pair of pods and family.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.targets.iter().map(Vec::len).sum::<usize>().saturating_mul(self.names.len())
    }

    /// Returns the cells that are wrong, in words.
    #[must_use]
    pub fn unreached(&self) -> Vec<String> {
        let rows = self.names.iter().zip(&self.reached);
        rows.flat_map(|(from, reached)| {
            let all = self.names.iter().zip(&self.targets);
            let pairs = all.flat_map(|(to, addrs)| addrs.iter().map(move |addr| (to, addr)));
            pairs
                .filter(|(_, addr)| !reached.contains(addr))
                .map(move |(to, addr)| format!("{from} -> {to} ({addr})"))
        })
        .collect()
    }

    /// Fails unless everyone reaches everyone.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the first few cells that are wrong.
    pub fn require_full(&self) -> Result<(), Error> {
        let unreached = self.unreached();
        if self.cells() > 0 && unreached.is_empty() {
            return Ok(());
        }
        let some = unreached.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(Error::wrong(format!(
            "{} of {} cells are unreachable: {some}",
            unreached.len(),
            self.cells()
        )))
    }
}

impl fmt::Display for Matrix {
    /// Writes a row per pod: `#` where all addresses of the target answer, `.` where not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.names.iter().map(String::len).max().unwrap_or_default();
        for (name, reached) in self.names.iter().zip(&self.reached) {
            write!(f, "{name:width$}  ")?;
            for addrs in &self.targets {
                let is_reached = addrs.iter().all(|addr| reached.contains(addr));
                f.write_str(if is_reached { "#" } else { "." })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(reached: [&[&str]; 2]) -> Matrix {
        let addr = |text: &&str| text.parse::<IpAddr>().unwrap();
        Matrix {
            names: vec!["a".to_owned(), "b".to_owned()],
            targets: vec![vec![addr(&"10.0.0.1")], vec![addr(&"10.0.0.2")]],
            reached: reached.iter().map(|row| row.iter().map(addr).collect()).collect(),
        }
    }

    #[test]
    fn is_full_when_every_cell_answers() {
        let full = matrix([&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]]);
        assert_eq!(full.to_string(), "a  ##\nb  ##\n");
        assert!(full.require_full().is_ok());
    }

    #[test]
    fn names_the_cells_that_do_not_answer() {
        let holed = matrix([&["10.0.0.1"], &["10.0.0.1", "10.0.0.2"]]);
        assert_eq!(holed.to_string(), "a  #.\nb  ##\n");
        assert_eq!(holed.unreached(), ["a -> b (10.0.0.2)"]);
    }

    #[test]
    fn an_empty_matrix_proves_nothing() {
        assert!(Matrix::default().require_full().is_err());
    }
}
