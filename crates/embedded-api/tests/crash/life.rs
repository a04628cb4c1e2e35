//! A process that writes until it is killed.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use embedded_api::Object;
use embedded_api::store::{Entry, Keep, Key, Options, Revision, Store};
use serde_json::json;

/// Writers of one process; each has one object and one write at a time.
pub(crate) const CLIENTS: usize = 4;
pub(crate) const RESOURCE: &str = "configmaps";
/// What a life is told, in the environment of its process.
const LIFE: &str = "CALICO_TEST_LIFE";
const TEST: &str = "no_answered_write_is_lost_by_a_thousand_kills";

/// Numbers that look random; who is killed where is up to the machine anyway.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns whether the write with this number deletes the object.
pub(crate) fn is_deletion(number: u64) -> bool {
    number.is_multiple_of(7)
}

/// Returns the name of a client's object.
pub(crate) fn name(client: usize) -> String {
    format!("client-{client}")
}

/// Returns the number that wrote this state.
pub(crate) fn number(entry: &Entry) -> u64 {
    entry.object().unwrap().body["number"].as_u64().unwrap()
}

/// A write that was answered.
pub(crate) struct Answer {
    pub(crate) client: usize,
    pub(crate) number: u64,
    pub(crate) revision: Revision,
}

/// What one process does.
pub(crate) struct Life {
    pub(crate) path: PathBuf,
    /// The first number that its clients write.
    pub(crate) from: u64,
}

impl Life {
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(LIFE).ok()?;
        let (from, path) = text.split_once(' ').unwrap();
        Some(Self { path: path.into(), from: from.parse().unwrap() })
    }

    /// Runs it in a process of its own, and kills that; returns what it said.
    pub(crate) fn start_and_kill(&self, delay: Duration) -> Vec<Answer> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(LIFE, format!("{} {}", self.from, self.path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            said.read_to_string(&mut text).map(|_| text)
        });
        // The moment of the kill is the input of this test.
        thread::sleep(delay);
        child.kill().unwrap();
        let end = child.wait().unwrap();
        assert!(end.code().is_none(), "the writer ended by itself: {end}");
        let text = reader.join().unwrap().unwrap();
        // What comes after the last line's end was cut off.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(Answer::parse).collect()
    }

    /// Writes until the end.
    pub(crate) fn live(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.unwrap().block_on(async {
            // So small a history that compaction is always at work.
            let keep = Keep { revisions: 20, ..Keep::default() };
            let options = Options { keep, ..Options::default() };
            let store = Store::open(&self.path, options).unwrap();
            say("\n");
            let client = |client| tokio::spawn(write(store.clone(), client, self.from));
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    }
}

async fn write(store: Store, client: usize, from: u64) {
    for number in from.. {
        let key =
            Key { resource: RESOURCE.into(), namespace: "a".into(), name: name(client).into() };
        // Some states need several pages.
        let data = "x".repeat(usize::try_from(number % 5).unwrap() * 2000);
        let object = Object::from_value(json!({ "number": number, "data": data })).unwrap();
        let decide = move |t: &mut embedded_api::store::Transaction<'_>| {
            if is_deletion(number) && t.get(&key)?.is_some() {
                t.delete(&key, object)
            } else {
                t.put(key, object)
            }
        };
        let entry = store.write(decide).await.unwrap();
        say(&format!("answer {client} {number} {}\n", entry.revision));
    }
}

/// Speaks in one piece: a pipe takes so little at once, or nothing.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
}

impl Answer {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("answer ")?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let client = usize::try_from(number()?).ok()?;
        Some(Self { client, number: number()?, revision: number()? })
    }
}
