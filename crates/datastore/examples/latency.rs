//! Measures what one run of a CNI plugin pays for the datastore: `latency KUBECONFIG [RUNS]`.
//!
//! Each figure is the best and the median of RUNS (20) fresh clients, in milliseconds.

use std::time::Instant;

use datastore::{Client, Error, Options};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the figures are this program's purpose")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: latency KUBECONFIG [RUNS]")?;
    let runs: usize = arguments.next().map_or(Ok(20), |runs| runs.parse())?;
    let mut rows: [(&str, Vec<f64>); 4] = [
        ("read the kubeconfig", Vec::new()),
        ("connect and first GET", Vec::new()),
        ("next GET", Vec::new()),
        ("8 parallel GETs on a fresh client", Vec::new()),
    ];
    for _ in 0..runs {
        let start = Instant::now();
        let client = Client::connect(&Options::kubeconfig(&path))?;
        let read = millis(start);
        let first = get(&client).await?;
        let next = get(&client).await?;
        let fresh = Client::connect(&Options::kubeconfig(&path))?;
        let start = Instant::now();
        try_join_all((0..8).map(|_| get(&fresh))).await?;
        let parallel = millis(start);
        if fresh.connections() > 1 {
            return Err("parallel requests did not share a connection".into());
        }
        for ((_, row), value) in rows.iter_mut().zip([read, first, next, parallel]) {
            row.push(value);
        }
    }
    for (name, row) in &mut rows {
        row.sort_by(f64::total_cmp);
        let best = row.first().copied().unwrap_or_default();
        let median = row.get(row.len().div_euclid(2)).copied().unwrap_or_default();
        println!("{name:34} best {best:6.2} ms, median {median:6.2} ms");
    }
    Ok(())
}

async fn get(client: &Client) -> Result<f64, Error> {
    let start = Instant::now();
    client.get::<Namespace>("default").await?;
    Ok(millis(start))
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
