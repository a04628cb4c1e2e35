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
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    let text = std::fs::read_to_string(&status).map_err(Error::file(&status))?;
    of_status(&text).ok_or_else(|| Error::wrong(format!("no VmRSS in {}", status.display())))
}

fn of_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status() {
        assert_eq!(of_status("Name:\tx\nVmRSS:\t   12345 kB\n"), Some(12_345));
        assert_eq!(of_status("Name:\tx\n"), None);
    }
}
