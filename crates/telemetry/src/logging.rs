//! Where log events go, in which form, and from which level on.
//!
//! The level names are Calico's. Lines carry RFC 3339 times in UTC.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The least important event to keep, by Calico's names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Level {
    /// Everything, and what the libraries do.
    Trace,
    /// What is done and why.
    Debug,
    /// What changes.
    #[default]
    Info,
    /// What somebody may want to correct.
    Warning,
    /// What failed.
    Error,
    /// What ended the program; such events are logged as errors.
    Fatal,
    /// Nothing.
    None,
}

/// A level name that Calico does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("log level {0:?} is unknown; use Debug, Info, Warning, Error, Fatal or None")]
pub struct UnknownLevel(String);

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people: time, level, part of the program, message, fields.
    #[default]
    Text,
    /// For programs: one JSON object.
    Json,
}

/// Where events go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// What goes to standard error; standard output belongs to the program's results.
    pub screen: Level,
    /// A file to append to, and what goes there.
    pub file: Option<(PathBuf, Level)>,
    /// The form of a line, in both places.
    pub format: Format,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot append to the log file {}: {source}; correct the path or set its level to None", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The process has a log already.
    #[error("logging was started before; start it once, from main")]
    Started,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text.to_ascii_lowercase().as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warning" | "warn" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            "fatal" | "panic" => Ok(Self::Fatal),
            "none" | "" => Ok(Self::None),
            _ => Err(UnknownLevel(text.to_owned())),
        }
    }
}

/// Starts logging for this process; call it once, first.
///
/// # Errors
///
/// [`Error::Open`] if the file cannot be opened, [`Error::Started`] the second time.
pub fn init(options: &Options) -> Result<(), Error> {
    let screen = layer(options.format, options.screen, io::stderr);
    let file = match &options.file {
        Some((path, level)) if *level != Level::None => {
            Some(layer(options.format, *level, Arc::new(open(path)?)))
        }
        _ => None,
    };
    let subscriber = tracing_subscriber::registry().with(screen).with(file);
    subscriber.try_init().map_err(|_| Error::Started)
}

fn open(path: &Path) -> Result<File, Error> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| OpenOptions::new().create(true).append(true).mode(0o640).open(path))
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}

fn layer<S, W>(format: Format, level: Level, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        Format::Text => layer.with_filter(filter(level)).boxed(),
        Format::Json => layer.json().flatten_event(true).with_filter(filter(level)).boxed(),
    }
}

/// Returns what passes at `level`: our own events, and of the libraries only what is one step
/// more important, because they speak of frames and wake-ups.
fn filter(level: Level) -> Targets {
    let (ours, theirs) = match level {
        Level::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
        Level::Warning => (LevelFilter::WARN, LevelFilter::WARN),
        Level::Error | Level::Fatal => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::None => (LevelFilter::OFF, LevelFilter::OFF),
    };
    let libraries = ["h2", "hyper", "hyper_util", "netlink_proto", "rustls", "tokio", "tower"];
    libraries
        .into_iter()
        .fold(Targets::new().with_default(ours), |targets, name| targets.with_target(name, theirs))
        // They quote whole answers of the API server, which may hold Secrets; the errors that they
        // return are logged by their callers.
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("kube_runtime", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn reads_calicos_names_in_any_case() {
        for (text, level) in [
            ("Debug", Level::Debug),
            ("INFO", Level::Info),
            ("warning", Level::Warning),
            ("Warn", Level::Warning),
            ("Error", Level::Error),
            ("fatal", Level::Fatal),
            ("none", Level::None),
            ("", Level::None),
        ] {
            assert_eq!(text.parse(), Ok(level), "{text}");
        }
        let error = "loud".parse::<Level>().unwrap_err().to_string();
        assert!(error.contains("\"loud\"") && error.contains("use Debug"), "{error}");
    }

    /// Returns what is written when `say` logs at `level`.
    fn written(format: Format, level: Level, say: impl FnOnce()) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&buffer);
        let layer = layer(format, level, move || Shared(Arc::clone(&writer)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        String::from_utf8(buffer.lock().unwrap().clone()).unwrap()
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn keeps_what_is_important_enough() {
        let say = || {
            tracing::debug!("detail");
            tracing::info!("change");
            tracing::error!("failure");
        };
        let lines = |level| written(Format::Text, level, say).lines().count();
        assert_eq!(lines(Level::Debug), 3);
        assert_eq!(lines(Level::Info), 2);
        assert_eq!(lines(Level::Fatal), 1);
        assert_eq!(lines(Level::None), 0);
    }

    #[test]
    fn never_repeats_what_kube_says() {
        let say = || tracing::error!(target: "kube_client::client", "whole answer");
        assert_eq!(written(Format::Text, Level::Trace, say), "");
    }

    #[test]
    fn a_json_line_holds_the_fields_beside_the_message() {
        let line = written(Format::Json, Level::Info, || tracing::info!(peer = "10.0.0.1", "up"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "up");
        assert_eq!(value["peer"], "10.0.0.1");
        assert_eq!(value["level"], "INFO");
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn names_the_file_that_it_cannot_open() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        assert!(open(&directory.path().join("new/calico.log")).is_ok());
    }
}
