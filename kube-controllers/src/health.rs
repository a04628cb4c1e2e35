//! How a probe asks.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a probe waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the health endpoint of this machine; returns whether the answer is good, and its text.
///
/// # Errors
///
/// Whatever keeps the endpoint from answering.
pub(crate) fn ask(port: u16, path: &str) -> io::Result<(bool, String)> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_good = answer.starts_with("HTTP/1.1 200");
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, text)| text).to_owned();
    Ok((is_good, text))
}
