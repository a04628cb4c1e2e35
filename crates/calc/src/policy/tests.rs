//! The incremental calculation, the naive one and the two evaluators agree.

mod cluster;
pub(super) mod facts;
mod histories;
pub(super) mod random;
pub(super) mod rules;
mod verdicts;
