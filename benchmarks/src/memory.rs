//! How much memory a process holds.

use std::fmt::Display;
use std::path::Path;

use lab::Error;

/// Returns the resident memory of a process in KiB (`proc_pid_status(5)`).
///
/// # Errors
///
/// [`Error`] if there is no such process.
pub(crate) fn resident_kib(pid: impl Display) -> Result<u64, Error> {
    of_process(pid, "VmRSS:")
}

/// Returns the most resident memory that a process has had, in KiB.
///
/// # Errors
///
/// [`Error`] if there is no such process.
pub(crate) fn peak_kib(pid: impl Display) -> Result<u64, Error> {
    of_process(pid, "VmHWM:")
}

fn of_process(pid: impl Display, key: &str) -> Result<u64, Error> {
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    let text = std::fs::read_to_string(&status).map_err(Error::file(&status))?;
    of_status(&text, key).ok_or_else(|| Error::wrong(format!("no {key} in {}", status.display())))
}

fn of_status(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status() {
        assert_eq!(of_status("Name:\tx\nVmRSS:\t   12345 kB\n", "VmRSS:"), Some(12_345));
        assert_eq!(of_status("Name:\tx\n", "VmRSS:"), None);
    }
}
