//! Docker's own API, over its socket: which networks and containers there are, and what happens.
//!
//! Docker waits for a driver while it holds a container, so nothing here is asked while Docker
//! waits for us, but lists of networks, for which it needs nothing that it holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::error::Error;

/// How long Docker may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The driver's name.
pub(crate) const DRIVER: &str = "calico";

/// Docker, as its API shows it.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    socket: PathBuf,
}

/// A network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Option<Ipam>,
    pub(crate) options: Option<BTreeMap<String, String>>,
    pub(crate) containers: Option<BTreeMap<String, Attachment>>,
}

/// What a network's addresses are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ipam {
    pub(crate) config: Option<Vec<IpamConfig>>,
}

/// One range of a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamConfig {
    pub(crate) subnet: String,
    pub(crate) auxiliary_addresses: Option<BTreeMap<String, String>>,
}

/// A container's attachment to a network.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(crate) struct Attachment {
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(rename = "MacAddress")]
    pub(crate) mac: String,
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6: String,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// What happens in Docker; only that something does.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    socket: PathBuf,
}

impl Docker {
    /// Makes a client; each request opens a connection of its own.
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Returns the network of an id, without its containers.
    ///
    /// # Errors
    ///
    /// [`Error::Docker`].
    pub(crate) async fn network(&self, id: &str) -> Result<Option<Network>, Error> {
        let networks: Vec<Network> =
            self.get(&format!("/networks?filters={}", filter("id", id))).await?;
        Ok(networks.into_iter().find(|network| network.id == id))
    }

    /// Returns our networks with their containers.
    ///
    /// # Errors
    ///
    /// [`Error::Docker`].
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, Error> {
        let listed: Vec<Network> =
            self.get(&format!("/networks?filters={}", filter("driver", DRIVER))).await?;
        let mut networks = Vec::new();
        for network in listed.into_iter().filter(|network| network.driver == DRIVER) {
            match self.get::<Network>(&format!("/networks/{}", network.id)).await {
                Ok(network) => networks.push(network),
                // It has just been removed.
                Err(Error::Docker { problem, .. }) if problem.starts_with("404") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(networks)
    }

    /// Returns all containers, also those that do not run.
    ///
    /// # Errors
    ///
    /// [`Error::Docker`].
    pub(crate) async fn containers(&self) -> Result<Vec<Container>, Error> {
        self.get("/containers/json?all=1").await
    }

    /// Starts to listen to what happens to networks: of what leaves one, its driver knows.
    ///
    /// # Errors
    ///
    /// [`Error::Docker`].
    pub(crate) async fn events(&self) -> Result<Events, Error> {
        let wanted = r#"{"type":["network"],"event":["create","connect","destroy","remove"]}"#;
        let path = format!("/events?filters={}", escaped(wanted));
        let body = tokio::time::timeout(TIMEOUT, self.ask(&path)).await;
        let body = body.map_err(|_| self.failed("no answer to a request for events"))??;
        Ok(Events { body, socket: self.socket.clone() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let read = async {
            let body = self.ask(path).await?;
            let body = body.collect().await.map_err(|error| self.failed(error))?.to_bytes();
            serde_json::from_slice(&body)
                .map_err(|error| self.failed(format!("the answer to {path}: {error}")))
        };
        let answered = tokio::time::timeout(TIMEOUT, read).await;
        answered.map_err(|_| self.failed(format!("no answer within {} s", TIMEOUT.as_secs())))?
    }

    /// Sends a request and returns the body of its good answer.
    async fn ask(&self, path: &str) -> Result<Incoming, Error> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.failed(format!("{error}; does dockerd run?")))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.failed(error))?;
        // It ends with the answer's last byte, or when nobody reads it any more.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get(path).header(header::HOST, "docker");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.failed(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.failed(error))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        let text = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_owned();
        Err(self.failed(format!("{} for {path}: {text}", status.as_u16())))
    }

    fn failed(&self, problem: impl ToString) -> Error {
        failed(&self.socket, problem)
    }
}

impl Events {
    /// Waits until something has happened.
    ///
    /// # Errors
    ///
    /// [`Error::Docker`] when Docker ends.
    pub(crate) async fn next(&mut self) -> Result<(), Error> {
        match self.body.frame().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(failed(&self.socket, error)),
            None => Err(failed(&self.socket, "dockerd has ended")),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass text and errors alike")]
fn failed(socket: &std::path::Path, problem: impl ToString) -> Error {
    Error::Docker { socket: socket.display().to_string(), problem: problem.to_string() }
}

/// Returns a filter as it stands in a URL.
fn filter(name: &str, value: &str) -> String {
    escaped(&format!("{{\"{name}\":[\"{value}\"]}}"))
}

/// Returns JSON as it stands in a URL.
fn escaped(json: &str) -> String {
    let mut text = String::new();
    for byte in json.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_urls() {
        assert_eq!(filter("driver", "calico"), "%7B%22driver%22%3A%5B%22calico%22%5D%7D");
    }

    #[test]
    fn networks_are_read_as_docker_shows_them() {
        let network: Network = serde_json::from_str(
            r#"{"Name":"web","Id":"1","Driver":"calico","Options":null,"Internal":false,
                "IPAM":{"Driver":"calico-ipam","Options":{},
                        "Config":[{"Subnet":"10.65.0.0/16","AuxiliaryAddresses":{"a":"10.65.0.9"}}]},
                "Containers":{"c":{"Name":"x","EndpointID":"e","MacAddress":"02:42:00:00:00:01",
                                   "IPv4Address":"10.65.0.1/32","IPv6Address":""}}}"#,
        )
        .unwrap();
        let attachment = network.containers.unwrap().remove("c").unwrap();
        assert_eq!(attachment.ipv4, "10.65.0.1/32");
        let config = network.ipam.unwrap().config.unwrap();
        assert_eq!(config[0].auxiliary_addresses.as_ref().unwrap().len(), 1);
    }
}
