//! The figures of the benchmark `overlay`, for people and for programs.

use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};

use super::programming::{Programming, Took};
use super::traffic::Carried;
use super::{Compared, Started};
use crate::statistics::{millis, percentile, ratio, rounded};

/// The most that ours without encapsulation may take away, in percent.
const AIM_PERCENT: f64 = 2.0;
/// The longest that four thousand routes may take.
const AIM_ROUTES: Duration = Duration::from_millis(200);

/// Prints what was measured.
#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
pub(super) fn print(
    compared: &[Compared],
    programming: &Programming,
    started: Option<Started>,
    load_average: &[String; 2],
) {
    let mut table = Table::new();
    table.set_header(["WAY", "FIGURE", "BARE", "OURS", "OURS / BARE", "OF ROUNDS"]);
    let mut ways = Vec::new();
    for Compared { mode, bare, ours } in compared {
        let mut figures = serde_json::Map::new();
        for (at, name) in Carried::NAMES.iter().enumerate() {
            let of = |carried: &[Carried]| -> Vec<f64> {
                carried.iter().filter_map(|carried| carried.figures().get(at).copied()).collect()
            };
            let (bare, ours) = (of(bare), of(ours));
            let ratios: Vec<f64> = ours.iter().zip(&bare).map(|(a, b)| ratio(*a, *b)).collect();
            let [bare, ours, between] = [bare, ours, ratios.clone()].map(median);
            let (least, most) = ends(&ratios);
            table.add_row([
                mode.name().to_owned(),
                (*name).to_owned(),
                format!("{bare:.2}"),
                format!("{ours:.2}"),
                format!("{between:.3}"),
                format!("{least:.3} to {most:.3}"),
            ]);
            figures.insert(
                (*name).to_owned(),
                json!({"bare": rounded(bare), "ours": rounded(ours), "ratio": between}),
            );
        }
        ways.push(json!({"way": mode.name(), "rounds": ours.len(), "figures": figures}));
    }
    println!("pod to pod on two nodes (load average {})\n{table}", load_average.join(" to "));
    println!(
        "the aim without encapsulation is {:.3} of the bare way; a way costs the same machine both \
         ends",
        1.0 - AIM_PERCENT / 100.0
    );
    let mut json = json!({"benchmark": "overlay", "ways": ways, "load_average": load_average});
    if let Some(started) = started {
        add(&mut json, "programming", print_programming(programming, started));
    }
    println!("{json}");
}

#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn print_programming(programming: &Programming, started: Started) -> Value {
    let mut table = Table::new();
    table.set_header(["BY", "WALL MS, P50", "PROCESSOR MS, P50"]);
    let mut rows = Vec::new();
    for (name, took) in
        [("ours", &programming.ours), ("bridge -batch, ip -batch", &programming.theirs)]
    {
        let [wall, processor] = halves(took);
        table.add_row([name.to_owned(), format!("{wall:.1}"), format!("{processor:.0}")]);
        rows.push(json!({"by": name, "wall_ms": wall, "processor_ms": processor}));
    }
    let Started { all_routes, processor } = started;
    println!(
        "{} routes, a neighbour and a forward for each four of them (aim for 4,000: {} ms)\n{table}",
        programming.routes,
        AIM_ROUTES.as_millis()
    );
    println!(
        "calico-node, from its start until all routes are there: {:.0} ms, processor {:.0} ms",
        millis(all_routes),
        millis(processor)
    );
    json!({
        "routes": programming.routes,
        "by": rows,
        "start_ms": millis(all_routes),
        "start_processor_ms": millis(processor),
    })
}

/// Returns the median of the time and of the processor time, in ms.
fn halves(took: &[Took]) -> [f64; 2] {
    let half = |of: fn(&Took) -> Duration| {
        let mut sorted: Vec<Duration> = took.iter().map(of).collect();
        sorted.sort_unstable();
        millis(percentile(&sorted, 50))
    };
    [half(|took| took.wall), half(|took| took.processor)]
}

fn add(json: &mut Value, key: &str, value: Value) {
    if let Some(object) = json.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// Returns the lower of the middle ones; zero if there are none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len().saturating_sub(1) / 2;
    figures.get(middle).copied().unwrap_or_default()
}

/// Returns the least and the greatest.
fn ends(figures: &[f64]) -> (f64, f64) {
    let least = figures.iter().copied().reduce(f64::min).unwrap_or_default();
    (least, figures.iter().copied().reduce(f64::max).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_was_measured() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
        let (least, most) = ends(&[0.9, 0.7, 1.1]);
        assert!((least - 0.7).abs() < f64::EPSILON && (most - 1.1).abs() < f64::EPSILON);
    }
}
