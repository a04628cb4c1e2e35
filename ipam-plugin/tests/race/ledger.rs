//! What the writers were told, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Everything that happened.
#[derive(Default)]
pub(crate) struct Ledger {
    events: Mutex<Vec<Event>>,
    kills: Mutex<usize>,
}

/// Something that happened to one container.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Event {
    /// In nanoseconds since 1970; the same clock for all processes.
    pub(crate) at: u128,
    pub(crate) container: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum What {
    /// An address is asked for.
    Asks,
    /// It was given.
    Has(String),
    /// A release begins; from now on the address may be somebody else's.
    Releases,
}

impl Event {
    pub(crate) fn now(container: &str, what: What) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self { at: since.unwrap().as_nanos(), container: container.to_owned(), what }
    }

    /// Writes it as one line.
    pub(crate) fn to_line(&self) -> String {
        let what = match &self.what {
            What::Asks => "asks".to_owned(),
            What::Has(addr) => format!("has {addr}"),
            What::Releases => "releases".to_owned(),
        };
        format!("event {} {} {what}", self.at, self.container)
    }

    /// Reads a line; `None` for one that is none, or was cut by a kill.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        // The first line of a test program ends without a newline.
        let words: Vec<&str> = line.split_once("event ")?.1.split(' ').collect();
        let (at, container, what) = match words.as_slice() {
            [at, container, "asks"] => (at, container, What::Asks),
            [at, container, "has", addr] => (at, container, What::Has((*addr).to_owned())),
            [at, container, "releases"] => (at, container, What::Releases),
            _ => return None,
        };
        Some(Self { at: at.parse().ok()?, container: (*container).to_owned(), what })
    }
}

impl Ledger {
    pub(crate) fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    pub(crate) fn note_kill(&self) {
        *self.kills.lock().unwrap() += 1;
    }

    pub(crate) fn kills(&self) -> usize {
        *self.kills.lock().unwrap()
    }

    pub(crate) fn containers(&self) -> BTreeSet<String> {
        self.events.lock().unwrap().iter().map(|event| event.container.clone()).collect()
    }

    /// Returns how many containers a writer has asked for.
    pub(crate) fn containers_of(&self, writer: usize) -> usize {
        let prefix = format!("w{writer}c");
        self.containers().iter().filter(|container| container.starts_with(&prefix)).count()
    }

    /// Returns who has which address in the end; nobody may have been given one
    /// while another had it.
    pub(crate) fn holders(&self) -> BTreeMap<String, String> {
        let mut events = self.events.lock().unwrap().clone();
        events.sort();
        let mut holders: BTreeMap<String, String> = BTreeMap::new();
        for event in events {
            match event.what {
                What::Asks => {}
                What::Releases => holders.retain(|_, holder| *holder != event.container),
                What::Has(addr) => {
                    let earlier = holders.insert(addr.clone(), event.container.clone());
                    let is_shared = earlier.as_ref().is_some_and(|one| *one != event.container);
                    assert!(!is_shared, "{addr} was given to {} and {earlier:?}", event.container);
                }
            }
        }
        holders
    }
}
