//! One suite of requests, played against the embedded datastore and against kube-apiserver with etcd.
//!
//! `CONTRACT_TOPIC=NAME` plays one topic alone, `CONTRACT_DUMP=FILE` writes all answers down.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod client;
mod differences;
mod kubectl;
mod normal;
mod player;
mod servers;
mod suite;

use lab::control_plane::Kind;
use servers::Server;

#[test]
fn answers_like_kubernetes() {
    let topics = suite::topics();
    let [kubernetes, embedded] = on_both(|server| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(player::play(server, &topics))
    });
    if let Ok(path) = std::env::var("CONTRACT_DUMP") {
        let (kubernetes, embedded) = (&kubernetes.answers, &embedded.answers);
        let both = serde_json::json!({"kubernetes": kubernetes, "embedded": embedded});
        std::fs::write(path, both.to_string()).unwrap();
    }
    let differences = differences::between(&kubernetes.answers, &embedded.answers);
    let mut problems = [kubernetes.failures, embedded.failures].concat();
    let is_all_played = std::env::var_os("CONTRACT_TOPIC").is_none();
    problems.extend(differences::judge(&differences, &differences::deliberate(), is_all_played));
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(kubernetes.requests >= 600 || !is_all_played, "the suite has become small");
}

#[test]
fn kubectl_says_the_same_of_both() {
    let session = kubectl::session();
    let [kubernetes, embedded] = on_both(|server| kubectl::play(&server.plane, &session));
    let problems = kubectl::compare(&session, &kubernetes, &embedded);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Starts both servers and does the same with each at once.
fn on_both<T: Send>(act: impl Fn(&mut Server) -> T + Sync) -> [T; 2] {
    let act = &act;
    std::thread::scope(|scope| {
        let start = |kind| scope.spawn(move || act(&mut Server::start(kind)));
        let both = [Kind::Kubernetes, Kind::Embedded].map(start);
        both.map(|thread| thread.join().unwrap())
    })
}
