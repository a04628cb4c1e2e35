//! What one program does for the whole cluster: it finds lost addresses and gives them back,
//! clears up after nodes, gives addresses to Services, makes host endpoints, and guards what is
//! in use from being deleted.
//!
//! ```text
//!  lists ─► ledger::Scene ─► audit::check ─► Watchlist: seen twice, long enough? ─► audit::plan
//!                                                                                      │
//!            metrics, log ◄── what was done ◄── ledger::repair: still gone? ◄──────────┘
//! ```
//!
//! Nothing is remembered that matters: after a restart a suspicion has to last its grace
//! period again. There is no cache either; every look lists everything anew, so a watch that
//! missed something cannot make a live address look lost.
//!
//! Start reading at [`watchlist`].

pub mod cli;
mod daemon;
mod election;
mod finalizers;
mod health;
mod host_endpoints;
mod load_balancer;
mod look;
mod metrics;
mod policy_names;
mod settings;
pub mod watchlist;
