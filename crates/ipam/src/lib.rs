//! Address management: who gets which address, decided without doing anything.
//!
//! Addresses live in blocks, blocks in pools. A node claims a block through an
//! affinity, a container holds addresses through a handle. Every object is
//! changed only by compare-and-swap, so any number of nodes, processes and
//! crashes may interleave and no address is ever given twice.
//!
//! ```text
//!             ┌──── next() ──► Step::Act(ops) ────┐
//!   Machine   │                                   ▼   the driver: one request per Op,
//!             └──◄── feed(op, outcome) ◄──────────┘   those of a step side by side
//! ```
//!
//! A machine keeps what it was last told of each object ([`View`]) and derives
//! the next step from that alone. A conflict or a lost response only makes it
//! forget the object: it reads again and continues from what is really there,
//! which is why a retried or repeated request never takes a second address.
//!
//! The rules of order, in one place each:
//!
//! 1. **The handle counts before the block gives** ([`Assignment`]), and **the
//!    block takes back before the handle forgets** ([`Release`]). A crash in
//!    between leaves a handle that counts too much, which is harmless, never an
//!    address that no handle leads to.
//! 2. **Affinity pending, then block, then affinity confirmed.** Routing
//!    believes confirmed affinities only.
//! 3. **Say what you claim before you look who else does.** Blocks of different
//!    size have different names, so creating one does not collide with the
//!    other. The pending affinity is written first, then all blocks and
//!    affinities are listed again; of two overlapping claims at least one sees
//!    the other and withdraws.
//! 4. **An empty block gives nothing before its claim was read after it.** A block
//!    that is created late, for a writer that died, has no claim then; whoever needs
//!    its addresses removes it.
//! 5. **A claim on a block is broken by deleting the block first**, at the
//!    revision at which it was seen empty.
//!
//! What is wrong with all of it, and how that is repaired, is [`audit`].
//!
//! Start reading at [`Assignment`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod assign;
pub mod audit;
mod failure;
mod machine;
mod pools;
mod ranges;
mod release;
pub mod slots;
pub mod tunnel;

pub use assign::{Assigned, Assignment, Request, Scene};
pub use failure::{Failure, Limit, PoolUsage};
pub use machine::{Key, Known, Machine, Op, Outcome, Record, Step, View};
pub use pools::{Candidates, PoolReference, Selectors, pools_for, pools_holding};
pub use ranges::{Ranges, seed_of};
pub use release::{AddressRelease, Expected, Release, Released};
