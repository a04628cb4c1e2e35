//! What a program says about itself: logs, metrics and health.
//!
//! * [`logging`] sends events to standard error and a file, by Calico's level names.
//! * [`plugin_log`] does so for a CNI plugin, as its network configuration says.
//! * [`metrics`] keeps numbers under exactly the names that Calico's dashboards use.
//! * [`health`] collects the state of the program's parts and answers the kubelet's probes.
//! * [`server`] serves health and metrics over HTTP.
//!
//! Nothing here is global except the log, which a process has only one of: registries and
//! aggregators are values that the program passes on.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod health;
pub mod logging;
pub mod metrics;
pub mod plugin_log;
pub mod server;
