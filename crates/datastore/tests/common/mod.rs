//! A small API server whose every answer the test decides (RFC 9112).

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datastore::{Client, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub authorization: Option<String>,
    pub body: String,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.target.contains("watch=true")
    }

    /// Returns the value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// What the server does with a request.
pub enum Reply {
    /// Sends a whole answer.
    Answer(u16, &'static str, Value),
    /// Sends these watch events and then ends the answer in good order.
    Events(Vec<Value>),
    /// Sends these watch events and keeps the answer open.
    EventsAndWait(Vec<Value>),
    /// Sends these watch events and cuts the connection.
    EventsAndCut(Vec<Value>),
    /// Cuts the connection without an answer.
    Cut,
    /// Never answers.
    Silence,
}

pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    directory: TempDir,
}

impl Server {
    /// Starts a server; `script` gets each request with the number of those before it.
    pub async fn start(script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&asked), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                tokio::spawn(async move { serve(stream, &log, script.as_ref()).await });
            }
        });
        Self { address, asked, directory: tempfile::tempdir().unwrap() }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Writes a kubeconfig with this user entry, such as `{token: abc}`.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        let text = kubeconfig(&format!("server: http://{}", self.address), user);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn client(&self) -> Client {
        self.client_with(Duration::from_secs(20))
    }

    /// Returns a client for servers that never answer.
    pub fn impatient_client(&self) -> Client {
        self.client_with(Duration::from_secs(1))
    }

    fn client_with(&self, timeout: Duration) -> Client {
        let options = Options { timeout, ..Options::kubeconfig(self.kubeconfig("{}")) };
        Client::connect(&options).unwrap()
    }
}

/// Returns a kubeconfig with one cluster and one user, given as YAML flow maps' contents.
pub fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {user}}}]\n"
    )
}

async fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    script: &(dyn Fn(usize, &Asked) -> Reply + Send + Sync),
) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(asked.clone());
            log.len() - 1
        };
        let stream = stream.get_mut();
        match script(number, &asked) {
            Reply::Answer(status, headers, body) => {
                let body = body.to_string();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\n{headers}content-type: application/json\r\n\
                     content-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Reply::Events(events) => {
                send(stream, &events).await;
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            Reply::EventsAndWait(events) => {
                send(stream, &events).await;
                std::future::pending::<()>().await;
            }
            Reply::EventsAndCut(events) => {
                send(stream, &events).await;
                return;
            }
            Reply::Cut => return,
            Reply::Silence => std::future::pending::<()>().await,
        }
    }
}

async fn send(stream: &mut TcpStream, events: &[Value]) {
    let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for event in events {
        let line = format!("{event}\n");
        write!(answer, "{:x}\r\n{line}\r\n", line.len()).unwrap();
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" if head.is_empty() => return None,
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        head.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name))
    };
    let length = header("content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = head.first()?.split(' ').map(str::to_owned);
    Some(Asked {
        method: words.next()?,
        target: words.next()?,
        authorization: header("authorization").map(|(_, value)| value.to_owned()),
        body: String::from_utf8(body).unwrap(),
    })
}

/// Returns a `ConfigMap` of namespace `a`.
pub fn config_map(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "a", "resourceVersion": version.to_string()},
    })
}

/// Returns a `ConfigMap` that no client can read.
pub fn broken_map(name: &str, version: u32) -> Value {
    let mut map = config_map(name, version);
    map["data"] = json!({"number": 5});
    map
}

/// Returns a list of `ConfigMap` objects.
pub fn list(version: u32, items: &[Value]) -> Reply {
    page(version, "", items)
}

/// Returns a page of a list that `token` continues.
pub fn page(version: u32, token: &str, items: &[Value]) -> Reply {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items,
    });
    Reply::Answer(200, "", body)
}

/// Returns an event of a watch.
pub fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

/// Returns an error answer's body.
pub fn status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "reason": reason, "message": format!("the server says {reason}"),
        "details": {"name": "x"},
    })
}
