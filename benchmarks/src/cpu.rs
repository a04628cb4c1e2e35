//! Processor time, which says what stands in the way on a machine that is shared with the server.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

/// Processor time so far, in clock ticks of 10 ms (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cpu {
    /// Of our children that have ended, and theirs: the programs that are measured.
    pub(crate) children: u64,
    /// Of the control plane.
    pub(crate) control_plane: u64,
}

/// The ticks of one process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ticks {
    own: u64,
    children: u64,
}

impl Cpu {
    /// Reads it now; what cannot be read is zero.
    #[must_use]
    pub(crate) fn now() -> Self {
        let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let children = ticks(&read("self")).map_or(0, |ticks| ticks.children);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let control_plane = processes
            .map(|entry| read(&entry.file_name().to_string_lossy()))
            .filter(|stat| stat.contains("(control-plane)"))
            .filter_map(|stat| ticks(&stat))
            .map(|ticks| ticks.own)
            .sum();
        Self { children, control_plane }
    }

    /// Returns the milliseconds per item since `before`, for `count` items: the programs' and
    /// the control plane's.
    #[must_use]
    pub(crate) fn since(self, before: Self, count: usize) -> [u64; 2] {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        let per_item = |now: u64, before: u64| {
            now.saturating_sub(before).saturating_mul(10).checked_div(count).unwrap_or_default()
        };
        [
            per_item(self.children, before.children),
            per_item(self.control_plane, before.control_plane),
        ]
    }
}

/// Returns the processor time that a process has used so far, zero if there is none.
#[must_use]
pub(crate) fn of_process(pid: impl Display) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = ticks(&stat).map_or(0, |ticks| ticks.own);
    Duration::from_millis(ticks.saturating_mul(10))
}

fn ticks(stat: &str) -> Option<Ticks> {
    // The name, in parentheses, may hold anything; the state is the first field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let sum = |first: usize, second: usize| {
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(number(first)?.saturating_add(number(second)?))
    };
    Some(Ticks { own: sum(11, 12)?, children: sum(13, 14)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_are_counted_from_the_end_of_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(Ticks { own: 33, children: 77 }));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn ticks_are_shared_among_the_items() {
        let before = Cpu { children: 10, control_plane: 5 };
        let now = Cpu { children: 110, control_plane: 55 };
        assert_eq!(now.since(before, 100), [10, 5]);
        assert_eq!(now.since(before, 0), [1000, 500]);
    }
}
