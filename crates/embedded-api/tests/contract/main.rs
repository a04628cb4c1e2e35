//! One suite of requests, played against the embedded datastore and against kube-apiserver with etcd.
//!
//! `CONTRACT_TOPIC=name` plays one topic alone.

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
    let play = &|kind| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut server = Server::start(kind);
        runtime.block_on(player::play(&mut server, &topics))
    };
    let (kubernetes, embedded) = std::thread::scope(|scope| {
        let kubernetes = scope.spawn(|| play(Kind::Kubernetes));
        let second = if std::env::var_os("CONTRACT_TWICE").is_some() {
            Kind::Kubernetes
        } else {
            Kind::Embedded
        };
        let embedded = scope.spawn(move || play(second));
        (kubernetes.join().unwrap(), embedded.join().unwrap())
    });
    if let Ok(path) = std::env::var("CONTRACT_DUMP") {
        let both =
            serde_json::json!({"kubernetes": kubernetes.answers, "embedded": embedded.answers});
        std::fs::write(path, both.to_string()).unwrap();
    }
    let differences = differences::between(&kubernetes.answers, &embedded.answers);
    let mut problems = [kubernetes.failures, embedded.failures].concat();
    let is_all_played = std::env::var_os("CONTRACT_TOPIC").is_none();
    problems.extend(differences::judge(&differences, &differences::deliberate(), is_all_played));
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(kubernetes.requests >= 200 || !is_all_played, "the suite has become small");
}

#[test]
fn kubectl_says_the_same_of_both() {
    let session = kubectl::session();
    let play = &|kind| kubectl::play(&Server::start(kind).plane, &session);
    let (kubernetes, embedded) = std::thread::scope(|scope| {
        let kubernetes = scope.spawn(move || play(Kind::Kubernetes));
        let second = if std::env::var_os("CONTRACT_TWICE").is_some() {
            Kind::Kubernetes
        } else {
            Kind::Embedded
        };
        let embedded = scope.spawn(move || play(second));
        (kubernetes.join().unwrap(), embedded.join().unwrap())
    });
    let mut problems = Vec::new();
    for (act, (kubernetes, embedded)) in session.iter().zip(kubernetes.iter().zip(&embedded)) {
        match (kubernetes == embedded, &act.differs) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => {
                problems.push(format!("nothing differs any more: {kubernetes} ({reason})"));
            }
            (false, None) => {
                problems.push(format!("--- Kubernetes\n{kubernetes}+++ embedded\n{embedded}"));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
