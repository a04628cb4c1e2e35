//! The incremental calculation, the naive one and the two evaluators agree.

mod cluster;
mod facts;
mod histories;
mod random;
mod rules;
mod verdicts;
