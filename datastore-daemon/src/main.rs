//! `calico-datastore`: the Kubernetes API for one machine, without a cluster.

fn main() {}
