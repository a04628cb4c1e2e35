//! One question: does this pod reach that one, in this way?

use std::collections::BTreeSet;
use std::fmt;

use model::net::Family;

use crate::protocol::Transport;

/// The cells that come through.
pub type Passing = BTreeSet<Cell>;

/// From one pod to another.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cell {
    /// Who asks, as `namespace/name`.
    pub from: String,
    /// Who is asked.
    pub to: String,
    /// By which addresses.
    pub family: Family,
    /// How.
    pub transport: Transport,
    /// The port; zero for those without.
    pub port: u16,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {}", self.from, self.to, self.transport)?;
        if self.port != 0 {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(if self.family == Family::V4 { " v4" } else { " v6" })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        })
    }
}

/// Describes how two answers differ, by a few of the cells; `None` if they do not.
#[must_use]
pub fn difference(
    (one, ones): (&str, &Passing),
    (other, others): (&str, &Passing),
) -> Option<String> {
    let some = |cells: Vec<&Cell>| {
        let texts = cells.iter().take(6).map(ToString::to_string);
        format!("{} ({})", cells.len(), texts.collect::<Vec<_>>().join(", "))
    };
    let lines: Vec<String> = [(one, ones, other, others), (other, others, one, ones)]
        .into_iter()
        .map(|(name, cells, without, rest)| (name, without, cells.difference(rest).collect()))
        .filter(|(_, _, cells): &(_, _, Vec<&Cell>)| !cells.is_empty())
        .map(|(name, without, cells)| format!("only {name}, not {without}: {}", some(cells)))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
