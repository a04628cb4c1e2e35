//! Kernel parameters under /proc/sys (sysctl(8)).
//!
//! Names are written with slashes, since the names of interfaces may hold dots.
//! Those under `net/` belong to the network namespace of the calling thread: use
//! [`crate::Netns::run`] to reach another's.

use std::fs;
use std::io;

use model::desired::{Need, Setting};
use model::net::{Family, IfName};

/// Where our manifests mount a part of /proc/sys that can be written: /proc/sys/net of the node.
const WRITABLE: &str = "/host/proc/sys";

/// Why a parameter cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name would lead out of /proc/sys.
    #[error("`{name}` is no kernel parameter: write it with slashes, such as net/ipv4/ip_forward")]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// There is no such parameter.
    #[error("kernel parameter {name} does not exist: its interface is gone or IPv6 is off")]
    Missing {
        /// What was given.
        name: String,
    },
    /// It cannot be read.
    #[error("cannot read kernel parameter {name}: {source}")]
    Read {
        /// The parameter.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot set kernel parameter {name} to `{value}`: {source}; run as root with /proc/sys writable"
    )]
    Write {
        /// The parameter.
        name: String,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidName { .. } | Self::Missing { .. } => false,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
            }
        }
    }
}

/// Returns the name of an interface's parameter: `net/ipv4/conf/cali1/proxy_arp`.
#[must_use]
pub fn of_interface(family: Family, if_name: &IfName, parameter: &str) -> String {
    format!("net/ipv{}/conf/{if_name}/{parameter}", family.number())
}

/// Returns the name of an interface's parameter about neighbours:
/// `net/ipv4/neigh/cali1/proxy_delay`.
#[must_use]
pub fn of_neighbours(family: Family, if_name: &IfName, parameter: &str) -> String {
    format!("net/ipv{}/neigh/{if_name}/{parameter}", family.number())
}

/// Reads a parameter, without the line's end.
///
/// # Errors
///
/// [`Error::InvalidName`], [`Error::Missing`] or [`Error::Read`].
pub fn read(name: &str) -> Result<String, Error> {
    match fs::read_to_string(path_of(name)?) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            Err(Error::Missing { name: name.to_owned() })
        }
        Err(source) => Err(Error::Read { name: name.to_owned(), source }),
    }
}

/// Writes a parameter.
///
/// # Errors
///
/// [`Error::InvalidName`], [`Error::Missing`] or [`Error::Write`].
pub fn write(name: &str, value: &str) -> Result<(), Error> {
    let written = match put(&path_of(name)?, value) {
        // The view of a container that is not privileged.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            put(&format!("{WRITABLE}/{name}"), value).or(Err(error))
        }
        written => written,
    };
    written.map_err(|source| {
        let name = name.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            Error::Missing { name }
        } else {
            Error::Write { name, value: value.to_owned(), source }
        }
    })
}

/// Gives parameters their values, in this order; returns what went wrong with those that a kernel
/// may lack.
///
/// # Errors
///
/// As [`write()`], for what is needed.
pub fn set_all(settings: &[Setting]) -> Result<Vec<Error>, Error> {
    let mut without = Vec::new();
    for setting in settings {
        // Some parameters make the kernel walk all interfaces even if nothing changes.
        if read(&setting.name).is_ok_and(|value| value == setting.value) {
            continue;
        }
        match (write(&setting.name, setting.value), setting.need) {
            (Ok(()), _) | (Err(Error::Missing { .. }), Need::Should) => {}
            (Err(error), Need::Should) => without.push(error),
            (Err(error), Need::Must) => return Err(error),
        }
    }
    Ok(without)
}

fn put(path: &str, value: &str) -> io::Result<()> {
    // `fs::write` would create what is missing; /proc refuses that with another error.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.as_bytes())
}

fn path_of(name: &str) -> Result<String, Error> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if name.split('/').count() > 1 && name.split('/').all(is_part) {
        Ok(format!("/proc/sys/{name}"))
    } else {
        Err(Error::InvalidName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_lead_elsewhere() {
        for wrong in ["", "/", "net", "/net/ipv4", "net//ipv4", "net/../../etc/passwd", "a/./b"] {
            assert!(matches!(read(wrong), Err(Error::InvalidName { .. })), "{wrong}");
        }
    }

    #[test]
    fn says_that_a_parameter_is_missing() {
        let error = write("net/ipv4/conf/none0/forwarding", "1").unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }

    #[test]
    fn interfaces_with_dots_keep_them() {
        let name = of_interface(Family::V6, &"vxlan.calico".parse().unwrap(), "disable_ipv6");
        assert_eq!(name, "net/ipv6/conf/vxlan.calico/disable_ipv6");
    }
}
