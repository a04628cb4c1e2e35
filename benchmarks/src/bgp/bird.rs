//! BIRD as injector and monitor: its control socket.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::Error;

/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(20);

/// A control socket.
#[derive(Clone, Debug)]
pub(super) struct Control(pub(super) PathBuf);

impl Control {
    /// Sends a command and returns the whole answer.
    pub(super) fn ask(&self, command: &str) -> Result<String, Error> {
        let failed = Error::file(&self.0);
        self.exchange(command).map_err(failed)
    }

    fn exchange(&self, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        read_answer(&mut stream)?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        read_answer(&mut stream)
    }

    /// Returns how many routes the daemon has.
    pub(super) fn routes(&self) -> Result<u32, Error> {
        let answer = self.ask("show route count")?;
        count_of(&answer).ok_or_else(|| Error::wrong(format!("no count in `{answer}`")))
    }

    /// Waits until the daemon has `count` routes; returns how long that took.
    pub(super) fn wait_routes(&self, count: u32, within: Duration) -> Result<Duration, Error> {
        let mut seen = 0;
        wait(&format!("{count} routes"), within, || {
            seen = self.routes()?;
            Ok((seen == count, seen.to_string()))
        })
    }

    /// Waits until all BGP sessions are established.
    pub(super) fn wait_established(&self) -> Result<Duration, Error> {
        wait("sessions", Duration::from_secs(60), || {
            let answer = self.ask("show protocols").unwrap_or_default();
            let mut sessions = answer.lines().filter(|line| line.contains(" BGP ")).peekable();
            let is_up =
                sessions.peek().is_some() && sessions.all(|line| line.contains("Established"));
            Ok((is_up, answer))
        })
    }
}

/// Asks until the answer is yes; returns how long that took.
pub(super) fn wait(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<(bool, String), Error>,
) -> Result<Duration, Error> {
    let since = Instant::now();
    loop {
        let (is_done, seen) = ask()?;
        if is_done {
            return Ok(since.elapsed());
        }
        if since.elapsed() > within {
            let detail = format!("; last seen: {seen}");
            return Err(Error::Timeout {
                what: what.to_owned(),
                seconds: within.as_secs(),
                detail,
            });
        }
        std::thread::sleep(POLL);
    }
}

/// Reads to the line whose code says that it is the last: four digits and a space, not 1 to 2.
fn read_answer(stream: &mut UnixStream) -> std::io::Result<String> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..len).unwrap_or_default());
        let text = String::from_utf8_lossy(&answer);
        if len == 0 || (text.ends_with('\n') && text.lines().last().is_some_and(is_last)) {
            return Ok(text.into_owned());
        }
    }
}

fn is_last(line: &str) -> bool {
    let code = line.split_once(' ').map_or(line, |(code, _)| code);
    code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_digit())
}

fn count_of(answer: &str) -> Option<u32> {
    let line = answer.lines().find(|line| line.contains(" routes for "))?;
    let words = line.split_once([' ', '-'])?.1;
    words.split_whitespace().next()?.parse().ok()
}

/// Writes `count` /32 routes as statements of a static protocol.
pub(super) fn write_routes(file: &Path, count: u32, are_unique: bool) -> Result<(), Error> {
    let failed = Error::file(file);
    let mut text = String::new();
    for number in 0..count {
        let addr = std::net::Ipv4Addr::from_bits((11 << 24) | number);
        let _ = write!(text, "route {addr}/32 blackhole");
        if are_unique {
            let (high, low) = (60_000_u32.saturating_add(number >> 16), number & 0xffff);
            let _ = write!(text, " {{ bgp_community.add(({high}, {low})); }}");
        }
        text.push_str(";\n");
    }
    std::fs::write(file, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_the_answer() {
        let answer = "1007-\n0014 5 of 5 routes for 5 networks in table master4\n";
        assert_eq!(count_of(answer), Some(5));
        assert_eq!(count_of("0014-12 of 12 routes for 12 networks\n"), Some(12));
    }

    #[test]
    fn the_last_line_has_a_space_behind_its_code() {
        assert!(is_last("0000 "));
        assert!(is_last("0014 5 of 5"));
        assert!(!is_last("1002-injector"));
        assert!(!is_last(" more"));
    }
}
