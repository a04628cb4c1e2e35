//! nftables over netlink: our two tables, `ip calico` and `ip6 calico`, and nobody else's.
//!
//! ```text
//!  Transaction ── apply ──► one batch: all of it, or nothing, and no packet sees a part
//!  Snapshot ◄── snapshot ── chains, identities of rules, sets and their elements
//!  Event ◄── Monitor ────── another process changed our tables
//! ```
//!
//! Nothing is ever done through the nft program: it reads everything before it
//! changes anything.

mod any;
pub(crate) mod attr;
mod counters;
mod dump;
mod element;
mod error;
mod expression;
pub(crate) mod message;
mod monitor;
mod names;
mod transport;

pub use error::{Error, Refusal};
pub use monitor::{Event, Monitor};

use model::net::Family;
use model::ruleset::{Snapshot, Transaction};

use crate::netns::Netns;
use attr::Reader;
use transport::Transport;

/// What one of our rules has counted since it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleCount {
    /// The family of its table.
    pub family: Family,
    /// The chain that it is in.
    pub chain: String,
    /// Whose it is, as far as its comment has room for that.
    pub note: String,
    /// How many packets met it.
    pub packets: u64,
    /// How many bytes these had.
    pub bytes: u64,
}

/// A netfilter socket in one network namespace.
#[derive(Debug)]
pub struct Nftables {
    transport: Transport,
}

impl Nftables {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Transport::open().map(|transport| Self { transport })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], [`Error::Netns`].
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// Carries out all of `transaction`, or nothing.
    ///
    /// The kernel does it within this call: a few microseconds for an element,
    /// milliseconds if many rules are there and chains change.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with every step that failed, [`Error::Outdated`] or
    /// [`Error::Socket`]. After the last one it is not known whether it was carried out.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        self.transport.commit(transaction)
    }

    /// Reads our tables as they are at one time.
    ///
    /// # Errors
    ///
    /// [`Error::KeepsChanging`], [`Error::Unreadable`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        dump::snapshot(&mut self.transport)
    }

    /// Reads what our rules have counted, chain by chain in their order.
    ///
    /// # Errors
    ///
    /// [`Error::KeepsChanging`], [`Error::Unreadable`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn counters(&mut self) -> Result<Vec<RuleCount>, Error> {
        counters::read(&mut self.transport)
    }

    /// Returns the kernel's count of changes of all of nftables.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        generation(&mut self.transport)
    }
}

/// Reads `bytes` as the kernel's answers, and returns how much of them makes sense: for fuzzers,
/// which have no other way to what reads them.
#[doc(hidden)]
#[must_use]
pub fn read_any(bytes: &[u8]) -> usize {
    any::read(bytes)
}

fn generation(transport: &mut Transport) -> Result<u32, Error> {
    const GENERATION: u16 = 1;
    let body = transport.get("generation", names::message::GET_GENERATION)?;
    let attributes = body.get(message::FAMILY_HEADER_LEN..).unwrap_or_default();
    Reader(attributes).number(GENERATION).ok_or(Error::Malformed { what: "generation" })
}
