//! The tokio shell around the sans-IO speaker of `bgp`.
