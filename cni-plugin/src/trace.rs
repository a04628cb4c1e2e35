//! How long the parts of one call took, for benchmarks and the debug log.
//!
//! If the variable `CALICO_CNI_TRACE` names a file, each call appends one line to it:
//! `{"command":"ADD","requests":4,"answers":0,"phases_ms":{"read":2.1,…},"total_ms":14.8,"code":0}`.
//! `requests` counts round trips to the API server, `answers` those to calico-node that it has
//! answered, both without those of a delegate that is another program.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// The variable that names the file.
const VARIABLE: &str = "CALICO_CNI_TRACE";

/// A record of one call.
#[derive(Debug)]
pub(crate) struct Trace {
    started: Instant,
    last: Cell<Instant>,
    phases: RefCell<Vec<(&'static str, Duration)>>,
    requests: Cell<u64>,
    answers: Cell<u64>,
}

impl Trace {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        let phases = RefCell::new(Vec::new());
        Self {
            started: now,
            last: Cell::new(now),
            phases,
            requests: Cell::new(0),
            answers: Cell::new(0),
        }
    }

    /// Notes that the phase `name` is over; the next begins.
    pub(crate) fn end_phase(&self, name: &'static str) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.last.replace(now));
        self.phases.borrow_mut().push((name, took));
    }

    /// Notes the number of round trips to the API server so far, and of calico-node's answers.
    pub(crate) fn set_requests(&self, requests: u64, answers: u64) {
        self.requests.set(requests);
        self.answers.set(answers);
    }

    /// Writes the record; `code` is zero for success.
    pub(crate) fn finish(&self, command: &str, code: u32) {
        let phases = self.phases.borrow();
        let phases: Map<String, Value> =
            phases.iter().map(|(name, took)| ((*name).to_owned(), json!(millis(*took)))).collect();
        let line = json!({
            "command": command,
            "requests": self.requests.get(),
            "answers": self.answers.get(),
            "phases_ms": phases,
            "total_ms": millis(self.started.elapsed()),
            "code": code,
        });
        tracing::debug!(trace = %line, "call finished");
        let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // One write per line, so that lines of processes at the same time do not mix.
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!(path = %path.to_string_lossy(), %error, "cannot append to the trace file");
        }
    }
}

/// Returns milliseconds to a thousandth, which is as fine as the clock is worth.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}
