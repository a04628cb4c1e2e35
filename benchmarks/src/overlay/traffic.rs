//! What a way between two pods carries: iperf3 with one stream, with eight, with small datagrams,
//! and round trips of ping.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lab::node::Node;
use lab::patience;
use lab::{Error, Signal};
use serde::Serialize;
use serde_json::Value;

/// What the server is called on its node.
const SERVER: &str = "iperf3";
/// How long the server may take until it answers.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes of payload in a small datagram.
const SMALL: &str = "64";

/// The end of a way: a network namespace on a node, and how the other end reaches it.
#[derive(Clone, Debug)]
pub(super) struct End<'a> {
    pub(super) node: &'a Node,
    pub(super) netns: String,
    pub(super) addr: String,
}

/// What a way carried in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Carried {
    /// Gbit/s of one TCP stream.
    pub(super) one_stream: f64,
    /// Gbit/s of eight TCP streams.
    pub(super) eight_streams: f64,
    /// Datagrams of 64 bytes that arrive in a second.
    pub(super) packets: f64,
    /// Round trips in a second, one after the other.
    pub(super) round_trips: f64,
}

impl Carried {
    /// Returns the figures in the order of [`Carried::NAMES`]; more is better in each.
    pub(super) const fn figures(&self) -> [f64; 4] {
        [self.one_stream, self.eight_streams, self.packets, self.round_trips]
    }

    pub(super) const NAMES: [&str; 4] =
        ["1 stream, Gbit/s", "8 streams, Gbit/s", "64 B datagrams/s", "round trips/s"];
}

/// Measures the way between two ends once, `seconds` for each figure.
///
/// # Errors
///
/// [`Error`] if a program fails or says what cannot be read.
pub(super) fn measure(from: &End<'_>, to: &End<'_>, seconds: u32) -> Result<Carried, Error> {
    let serve = inside(to, &["iperf3", "--server"]);
    to.node.start_program(SERVER, &words(&serve), &BTreeMap::new())?;
    let measured = with_server(from, to, seconds);
    to.node.end_program(SERVER, Signal::SIGTERM)?;
    measured
}

fn with_server(from: &End<'_>, to: &End<'_>, seconds: u32) -> Result<Carried, Error> {
    let time = seconds.to_string();
    let client = |more: &[&str]| {
        let client = ["iperf3", "--json", "--client", &to.addr];
        from.node.run(&words(&inside(from, &[&client, more].concat())))
    };
    let run = |more: &[&str]| client(&[&["--time", time.as_str()], more].concat());
    let started = Instant::now();
    // The first finds out whether the server is there yet, and warms the way up.
    while let Err(error) = client(&["--bytes", "1M"]) {
        if started.elapsed() > patience::on_this_machine(WITHIN) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let giga =
        |text: &str| Ok::<_, Error>(number(text, "/end/sum_received/bits_per_second")? / 1e9);
    let one_stream = giga(&run(&[])?)?;
    let eight_streams = giga(&run(&["--parallel", "8"])?)?;
    let small = run(&["--udp", "--bandwidth", "0", "--length", SMALL])?;
    let arrived = number(&small, "/end/sum/packets")? - number(&small, "/end/sum/lost_packets")?;
    let packets = arrived / number(&small, "/end/sum/seconds")?;
    // The next request goes out when the last one's answer has come.
    let ping = ["ping", "-n", "-q", "-f", "-w", &time, &to.addr];
    let said = from.node.run(&words(&inside(from, &ping)))?;
    let round_trips = round_trips(&said)
        .ok_or_else(|| Error::wrong(format!("ping does not tell its times: {said}")))?;
    Ok(Carried { one_stream, eight_streams, packets, round_trips })
}

/// Returns how many round trips a second holds, from what ping says of all: its times of single
/// ones are whole microseconds, of which a round trip has five to ten.
fn round_trips(said: &str) -> Option<f64> {
    let all = said.lines().find(|line| line.contains(" packets transmitted, "))?;
    let mut parts = all.split(", ");
    let answers: f64 = parts.find_map(|part| part.strip_suffix(" received"))?.parse().ok()?;
    let time = parts.find_map(|part| part.strip_prefix("time ")?.strip_suffix("ms"))?;
    let time: f64 = time.parse().ok()?;
    (time > 0.0).then(|| answers * 1000.0 / time)
}

fn number(text: &str, at: &str) -> Result<f64, Error> {
    let value: Value = serde_json::from_str(text).map_err(Error::wrong)?;
    let number = value.pointer(at).and_then(Value::as_f64);
    number.ok_or_else(|| Error::wrong(format!("iperf3 does not tell {at}: {text}")))
}

/// Returns the command that runs `command` at an end.
fn inside(end: &End<'_>, command: &[&str]) -> Vec<String> {
    let netns = ["ip", "netns", "exec", &end.netns];
    netns.iter().chain(command).map(|word| (*word).to_owned()).collect()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_time_become_round_trips_a_second() {
        let of = |answers: &str, time: &str| {
            let all = format!("20001 packets transmitted, {answers} received, 0% packet loss");
            round_trips(&format!("--- ping statistics ---\n{all}, time {time}ms\nrtt min/avg"))
        };
        assert_eq!(of("20000", "500"), Some(40_000.0));
        assert_eq!(of("0", "2000"), Some(0.0));
        assert_eq!(of("1", "0"), None);
        assert_eq!(round_trips("nothing"), None);
    }

    #[test]
    fn what_iperf3_leaves_out_is_an_error() {
        let text = r#"{"end": {"sum": {"packets": 7}}}"#;
        assert_eq!(number(text, "/end/sum/packets").ok(), Some(7.0));
        assert!(number(text, "/end/sum/seconds").is_err());
    }
}
