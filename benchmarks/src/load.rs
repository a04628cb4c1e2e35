//! Does the same thing many times, some of them at once, and keeps the times.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::Error;
use serde_json::{Value, json};

use crate::cpu::Cpu;
use crate::statistics::{Summary, per_second, rounded};

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// How long each success took.
    pub(crate) durations: Vec<Duration>,
    /// What each failure said.
    pub(crate) failures: Vec<String>,
    /// How long the whole took.
    pub(crate) took: Duration,
    /// Processor time per item, in ms: of the programs and of the control plane.
    pub(crate) cpu_ms: [u64; 2],
}

impl Outcome {
    /// Returns the summary of the successes.
    #[must_use]
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(&self.durations)
    }

    /// Returns the successes in a second.
    #[must_use]
    pub(crate) fn per_second(&self) -> f64 {
        rounded(per_second(self.durations.len(), self.took))
    }

    /// Returns all of it for the report.
    #[must_use]
    pub(crate) fn to_json(&self) -> Value {
        let summary = self.summary();
        let [programs, control_plane] = self.cpu_ms;
        json!({
            "count": summary.count,
            "p50_ms": summary.p50_ms,
            "p99_ms": summary.p99_ms,
            "max_ms": summary.max_ms,
            "cpu_ms_each": {"programs": programs, "control_plane": control_plane},
            "per_second": self.per_second(),
            "failures": self.failures.len(),
            "first_failure": self.failures.first(),
        })
    }
}

/// Does `work` for each of `jobs`, `at_once` of them at any time.
pub(crate) fn run<J: Sync>(
    jobs: &[J],
    at_once: usize,
    work: impl Fn(&J) -> Result<(), String> + Sync,
) -> Outcome {
    let next = AtomicUsize::new(0);
    let (durations, failures) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let serve = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let done = work(job);
            let took = started.elapsed();
            match done {
                Ok(()) => locked(&durations).push(took),
                Err(failure) => locked(&failures).push(failure),
            }
        }
    };
    let (started, cpu) = (Instant::now(), Cpu::now());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(serve);
        }
    });
    let took = started.elapsed();
    let cpu_ms = Cpu::now().since(cpu, jobs.len());
    let (durations, failures) = (locked(&durations).clone(), locked(&failures).clone());
    Outcome { durations, failures, took, cpu_ms }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Starts a program and gives it `stdin`.
///
/// # Errors
///
/// [`Error::Program`] if it cannot be started.
pub(crate) fn start(command: &mut Command, stdin: &[u8]) -> Result<Child, Error> {
    use std::io::Write as _;
    let name = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::program(&name, error))?;
    // A program that fails early does not read; its own words say why.
    drop(child.stdin.take().map(|mut pipe| pipe.write_all(stdin)));
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_and_failures_are_kept_apart() {
        let jobs: Vec<u32> = (0..100).collect();
        let done = AtomicUsize::new(0);
        let outcome = run(&jobs, 7, |job| {
            done.fetch_add(1, Ordering::Relaxed);
            if job % 10 == 0 { Err(format!("job {job}")) } else { Ok(()) }
        });
        assert_eq!(done.into_inner(), 100);
        assert_eq!((outcome.durations.len(), outcome.failures.len()), (90, 10));
        assert_eq!(outcome.to_json()["failures"], 10);
        assert_eq!(outcome.to_json()["count"], 90);
    }
}
