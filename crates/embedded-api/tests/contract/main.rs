//! One suite of requests, played against the embedded datastore and against kube-apiserver with etcd.

mod client;
mod normal;
mod player;
mod servers;
mod suite;

use suite::Side;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_like_kubernetes() {
    let topics = suite::topics();
    let started = std::time::Instant::now();
    let mut kubernetes = servers::Server::start(Side::Kubernetes);
    eprintln!("start {:?}", started.elapsed());
    let started = std::time::Instant::now();
    let record = player::play(&mut kubernetes, &topics).await;
    eprintln!("play {:?} {} requests", started.elapsed(), record.requests);
    if let Ok(path) = std::env::var("CONTRACT_DUMP") {
        std::fs::write(path, serde_json::to_string_pretty(&record.answers).unwrap()).unwrap();
    }
    assert!(record.failures.is_empty(), "{}", record.failures.join("\n"));
}
