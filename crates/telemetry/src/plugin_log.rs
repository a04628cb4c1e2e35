//! The log of a CNI plugin: standard error and the configured file, never standard output.
//!
//! A plugin lives for one call, so it looks once, at its start, whether the file has grown
//! too long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cni::config::{LogLevel, Logging};

use crate::logging::{self, Format, Level, Options};

/// Starts logging for this process as the network's configuration says; call it once.
///
/// A file that cannot be used is complained about and done without: no container
/// should lack a network because of a log.
pub fn init(config: &Logging) {
    let level = match config.level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    if let Some(path) = &config.file {
        rotate(path, config);
    }
    let file = config.file.clone().map(|path| (path, level));
    let options = Options { screen: level, file, format: Format::Text };
    if let Err(error) = logging::init(&options) {
        let screen_only = Options { file: None, ..options };
        if logging::init(&screen_only).is_ok() {
            tracing::warn!(%error, "logging to standard error only");
        }
    }
}

/// Sets a log aside that has grown too long, and forgets old ones.
fn rotate(path: &Path, config: &Logging) {
    let max_len = u64::from(config.max_size).saturating_mul(1 << 20);
    let len = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if max_len == 0 || len < max_len {
        return;
    }
    for number in (1..config.max_count).rev() {
        // Numbers without a file are gaps, and two processes that rotate at once lose
        // at most an old log.
        let _ = fs::rename(numbered(path, number), numbered(path, number.saturating_add(1)));
    }
    let _ = if config.max_count == 0 {
        fs::remove_file(path)
    } else {
        fs::rename(path, numbered(path, 1))
    };
    for number in 1..=config.max_count {
        let old = numbered(path, number);
        let changed = fs::metadata(&old).and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        if !config.max_age.is_zero() && age.is_some_and(|age| age > config.max_age) {
            let _ = fs::remove_file(old);
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_logs_are_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cni.log");
        let config = Logging {
            level: LogLevel::Info,
            file: Some(path.clone()),
            max_size: 1,
            max_age: std::time::Duration::from_secs(60),
            max_count: 2,
        };
        for text in ["a", "b", "c"] {
            fs::write(&path, text.repeat(1 << 20)).unwrap();
            rotate(&path, &config);
        }
        assert!(!path.exists());
        assert!(fs::read_to_string(numbered(&path, 1)).unwrap().starts_with('c'));
        assert!(fs::read_to_string(numbered(&path, 2)).unwrap().starts_with('b'));
        assert!(!numbered(&path, 3).exists());
    }
}
