//! How one plugin runs another (CNI spec §4 "Delegation"): the part without processes.
//!
//! The caller starts the program that [`find`] names, with its own environment
//! (changed only as [`Call::environment`] says), the whole configuration on
//! standard input and its own standard error, and gives what came of it to
//! [`Outcome::into_success`] or [`Outcome::into_empty`].

use std::path::{Path, PathBuf};

use crate::config::is_plugin_type;
use crate::environment::{Attachment, Netns};
use crate::error::{Error, ErrorCode};
use crate::result::Success;
use crate::version::Version;

/// Returns the program of the plugin `name` in the first directory that has it.
///
/// # Errors
///
/// [`ErrorCode::InvalidConfig`] if `name` could leave the directories,
/// [`ErrorCode::InvalidEnvironment`] if there are none, [`ErrorCode::Delegate`]
/// if none has the program.
pub fn find(
    name: &str,
    path: &[PathBuf],
    is_program: impl Fn(&Path) -> bool,
) -> Result<PathBuf, Error> {
    if !is_plugin_type(name) {
        let message = format!("plugin type `{name}` is no file name: write it without any path");
        return Err(Error::new(ErrorCode::InvalidConfig, message));
    }
    if path.is_empty() {
        let message = format!("CNI_PATH is empty: the runtime must say where `{name}` is");
        return Err(Error::new(ErrorCode::InvalidEnvironment, message));
    }
    let candidates = path.iter().map(|directory| directory.join(name));
    let mut found = candidates.filter(|program| is_program(program));
    found.next().ok_or_else(|| {
        let directories: Vec<_> = path.iter().map(|entry| entry.to_string_lossy()).collect();
        let directories = directories.join(", ");
        let message = format!("plugin `{name}` is in none of {directories}: install it there");
        Error::new(ErrorCode::Delegate, message)
    })
}

/// A call of another plugin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call<'a> {
    /// `CNI_COMMAND`.
    pub command: &'static str,
    /// Which attachment; STATUS is about none.
    pub attachment: Option<&'a Attachment>,
    /// In which namespace, if it is known.
    pub netns: Option<&'a Netns>,
    /// `CNI_ARGS`, as text.
    pub args: String,
    /// `CNI_PATH`.
    pub path: &'a [PathBuf],
}

impl Call<'_> {
    /// Returns the variables that the plugin gets, whatever the caller's own are.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 6] {
        let of =
            |text: &dyn Fn(&Attachment) -> String| self.attachment.map(text).unwrap_or_default();
        let netns = self.netns.map(|netns| netns.path().to_string_lossy().into_owned());
        let path: Vec<_> = self.path.iter().map(|entry| entry.to_string_lossy()).collect();
        [
            ("CNI_COMMAND", self.command.to_owned()),
            ("CNI_CONTAINERID", of(&|attachment| attachment.container_id.to_string())),
            ("CNI_NETNS", netns.unwrap_or_default()),
            ("CNI_IFNAME", of(&|attachment| attachment.if_name.to_string())),
            ("CNI_ARGS", self.args.clone()),
            ("CNI_PATH", path.join(":")),
        ]
    }
}

/// What came of running a plugin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it printed on standard output.
    pub stdout: Vec<u8>,
}

impl Outcome {
    /// Returns the result of an ADD by the plugin `name`; `version` is the configuration's.
    ///
    /// # Errors
    ///
    /// The plugin's own error, or [`ErrorCode::Delegate`] if it printed neither
    /// a result nor an error.
    pub fn into_success(self, name: &str, version: Version) -> Result<Success, Error> {
        self.check(name)?;
        Success::parse(&self.stdout, version).map_err(|error| {
            let message = format!("plugin `{name}` printed no usable result");
            Error::new(ErrorCode::Delegate, message).with_details(error.to_string())
        })
    }

    /// Says whether a DEL, CHECK, STATUS or GC by the plugin `name` succeeded.
    ///
    /// # Errors
    ///
    /// As [`Outcome::into_success`].
    pub fn into_empty(self, name: &str) -> Result<(), Error> {
        self.check(name)
    }

    fn check(&self, name: &str) -> Result<(), Error> {
        if self.status == Some(0) {
            return Ok(());
        }
        Err(Error::from_json(&self.stdout).unwrap_or_else(|| {
            let how = match self.status {
                Some(status) => format!("exited with {status}"),
                None => "was ended by a signal".to_owned(),
            };
            let message = format!("plugin `{name}` {how} and printed no error: see its log");
            Error::new(ErrorCode::Delegate, message)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Option<i32>, stdout: &str) -> Outcome {
        Outcome { status, stdout: stdout.into() }
    }

    #[test]
    fn plugins_are_found_in_the_first_directory_that_has_them() {
        let path = ["/a".into(), "/b".into(), "/c".into()];
        let found = find("calico-ipam", &path, |program| !program.starts_with("/a"));
        assert_eq!(found, Ok("/b/calico-ipam".into()));
    }

    #[test]
    fn plugins_never_come_from_elsewhere() {
        for name in ["../x", "/bin/sh", "a/b", "..", "", "a\\b", "a\0b", "."] {
            let error = find(name, &["/a".into()], |_| true).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{name}");
        }
    }

    #[test]
    fn absent_plugins_are_named() {
        let error = find("dhcp", &["/a".into(), "/b".into()], |_| false).unwrap_err();
        assert_eq!(error.to_string(), "plugin `dhcp` is in none of /a, /b: install it there");
        let error = find("dhcp", &[], |_| true).unwrap_err();
        assert_eq!(error.to_string(), "CNI_PATH is empty: the runtime must say where `dhcp` is");
    }

    #[test]
    fn errors_of_delegates_pass_through() {
        let printed = r#"{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"lock"}"#;
        let error = outcome(Some(1), printed).into_empty("calico-ipam").unwrap_err();
        assert_eq!(error, Error::new(ErrorCode::TryAgainLater, "busy").with_details("lock"));
    }

    #[test]
    fn nonsense_of_delegates_is_told_so() {
        let message =
            |outcome: Outcome| outcome.into_success("x", Version::V1_0_0).unwrap_err().to_string();
        assert_eq!(
            message(outcome(Some(2), "panic")),
            "plugin `x` exited with 2 and printed no error: see its log"
        );
        assert_eq!(
            message(outcome(None, "")),
            "plugin `x` was ended by a signal and printed no error: see its log"
        );
        assert_eq!(
            message(outcome(Some(0), "[]")),
            "plugin `x` printed no usable result: result is no JSON object: \
             the plugin that printed it is broken"
        );
    }
}
