//! The `CNI_…` variables that say what to do (CNI spec §2 "Parameters").

mod args;

pub use args::{Args, PodRef};

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::net::IfName;

use crate::error::{Error, ErrorCode};

/// What the runtime asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Environment {
    /// The command with what it needs.
    pub request: Request,
    /// `CNI_PATH`: where to look for other plugins.
    pub path: Vec<PathBuf>,
}

/// A command, `CNI_COMMAND`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Attach a container to the network.
    Add(Attachment, Netns),
    /// Undo an ADD; the namespace may be gone.
    Del(Attachment, Option<Netns>),
    /// Say whether an ADD's result still holds.
    Check(Attachment, Netns),
    /// Say whether ADD would be served.
    Status,
    /// Free what no listed attachment holds.
    Gc,
    /// Say which versions are spoken.
    Version,
}

/// Which attachment of which container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`: the interface's name inside the container.
    pub if_name: IfName,
    /// `CNI_ARGS`.
    pub args: Args,
}

/// The runtime's name of a container: a letter or digit, then letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContainerId(String);

/// `CNI_NETNS`: the path of a network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Netns(PathBuf);

/// Variables that are missing or wrong; the code is always
/// [`ErrorCode::InvalidEnvironment`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidEnvironment {
    /// Variables that the command needs are unset or empty.
    #[error("{command} needs {names}: the runtime must set {names}")]
    Missing {
        /// The command.
        command: String,
        /// The variables, separated by commas.
        names: String,
    },
    /// `CNI_COMMAND` is no command.
    #[error("CNI_COMMAND `{0}` is unknown: use ADD, DEL, CHECK, STATUS, GC or VERSION")]
    Command(String),
    /// A variable is not UTF-8.
    #[error("{0} is not UTF-8: the runtime must set it to text")]
    NotText(&'static str),
    /// `CNI_CONTAINERID` has characters that it may not have.
    #[error(
        "CNI_CONTAINERID `{0}` is no container id: use a letter or digit, then letters, \
         digits, `_`, `.` or `-`"
    )]
    ContainerId(String),
    /// `CNI_IFNAME` is no name for an interface.
    #[error(
        "CNI_IFNAME `{0}` is no interface name: use 1 to 15 characters without `/`, `:`, `%` or spaces"
    )]
    IfName(String),
    /// `CNI_NETNS` is no absolute path.
    #[error("CNI_NETNS `{0}` is no absolute path: use one such as /var/run/netns/NAME")]
    Netns(String),
    /// `CNI_ARGS` is no list of `KEY=VALUE`.
    #[error("CNI_ARGS has `{0}`: use KEY=VALUE pairs with `;` between them")]
    Args(String),
    /// A value in `CNI_ARGS` is wrong.
    #[error("CNI_ARGS has {key}=`{value}`: {remedy}")]
    ArgValue {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        remedy: &'static str,
    },
}

impl From<InvalidEnvironment> for Error {
    fn from(error: InvalidEnvironment) -> Self {
        Self::new(ErrorCode::InvalidEnvironment, error.to_string())
    }
}

impl Environment {
    /// Reads the variables through `lookup`, which is `std::env::var_os` in programs.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] with every missing variable, or the first wrong one.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, InvalidEnvironment> {
        let variables = Variables::read(lookup)?;
        let path = variables.path.split(':').filter(|entry| !entry.is_empty());
        let path: Vec<_> = path.map(PathBuf::from).collect();
        Ok(Self { request: variables.request()?, path })
    }
}

impl Request {
    /// Returns the command as `CNI_COMMAND` writes it.
    #[must_use]
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Add(..) => "ADD",
            Self::Del(..) => "DEL",
            Self::Check(..) => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

struct Variables {
    command: String,
    container_id: String,
    netns: String,
    if_name: String,
    args: String,
    path: String,
}

impl Variables {
    fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, InvalidEnvironment> {
        let text = |name: &'static str| {
            let value = lookup(name).unwrap_or_default();
            value.into_string().map_err(|_| InvalidEnvironment::NotText(name))
        };
        Ok(Self {
            command: text("CNI_COMMAND")?,
            container_id: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            if_name: text("CNI_IFNAME")?,
            args: text("CNI_ARGS")?,
            path: text("CNI_PATH")?,
        })
    }

    fn request(&self) -> Result<Request, InvalidEnvironment> {
        let container = ("CNI_CONTAINERID", &self.container_id);
        let netns = ("CNI_NETNS", &self.netns);
        let if_name = ("CNI_IFNAME", &self.if_name);
        match self.command.as_str() {
            "" => Err(missing("every call", &[("CNI_COMMAND", &self.command)])),
            "ADD" => {
                self.need(&[container, netns, if_name])?;
                Ok(Request::Add(self.attachment()?, self.netns.parse()?))
            }
            "CHECK" => {
                self.need(&[container, netns, if_name])?;
                Ok(Request::Check(self.attachment()?, self.netns.parse()?))
            }
            "DEL" => {
                self.need(&[container, if_name])?;
                let netns = Some(&self.netns).filter(|path| !path.is_empty());
                let netns = netns.map(|path| path.parse()).transpose()?;
                Ok(Request::Del(self.attachment()?, netns))
            }
            "STATUS" => Ok(Request::Status),
            "GC" => {
                self.need(&[("CNI_PATH", &self.path)])?;
                Ok(Request::Gc)
            }
            "VERSION" => Ok(Request::Version),
            other => Err(InvalidEnvironment::Command(other.to_owned())),
        }
    }

    fn need(&self, variables: &[(&str, &String)]) -> Result<(), InvalidEnvironment> {
        if variables.iter().any(|(_, value)| value.is_empty()) {
            return Err(missing(&self.command, variables));
        }
        Ok(())
    }

    fn attachment(&self) -> Result<Attachment, InvalidEnvironment> {
        // The kernel expands `%d` to a number of its own choice.
        let if_name = self.if_name.parse().ok().filter(|_| !self.if_name.contains('%'));
        Ok(Attachment {
            container_id: self.container_id.parse()?,
            if_name: if_name.ok_or_else(|| InvalidEnvironment::IfName(self.if_name.clone()))?,
            args: self.args.parse()?,
        })
    }
}

fn missing(command: &str, variables: &[(&str, &String)]) -> InvalidEnvironment {
    let unset = variables.iter().filter(|(_, value)| value.is_empty());
    let names: Vec<_> = unset.map(|(name, _)| *name).collect();
    InvalidEnvironment::Missing { command: command.to_owned(), names: names.join(", ") }
}

impl ContainerId {
    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidEnvironment;

    fn from_str(text: &str) -> Result<Self, InvalidEnvironment> {
        if is_cni_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidEnvironment::ContainerId(text.to_owned()))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Netns {
    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Netns {
    type Err = InvalidEnvironment;

    fn from_str(text: &str) -> Result<Self, InvalidEnvironment> {
        let path = Path::new(text);
        if path.is_absolute() && !text.contains('\0') {
            Ok(Self(path.to_owned()))
        } else {
            Err(InvalidEnvironment::Netns(text.to_owned()))
        }
    }
}

/// Is `text` a name as the specification wants for networks and containers: a
/// letter or digit, then letters, digits, `_`, `.` and `-`?
#[must_use]
pub fn is_cni_name(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(is_inner)
}

#[cfg(test)]
mod tests;
