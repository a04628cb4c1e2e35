//! The figures of the benchmark `overlay`, for people and for programs.

use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};

use super::programming::{Programming, Took};
use super::traffic::Carried;
use super::{Compared, Mode, Started};
use crate::statistics::{millis, percentile, ratio, rounded};

/// The least part of the bare way that ours without encapsulation must carry.
const LEAST_RATIO: f64 = 0.98;
/// The longest that [`AIM_COUNT`] routes may take.
const AIM_ROUTES: Duration = Duration::from_millis(200);
const AIM_COUNT: usize = 4_000;

/// Something that was aimed at, and what came of it.
struct Aim {
    of: String,
    measured: f64,
    is_kept: bool,
}

impl Aim {
    /// Judges how fast routes come into the kernel; fewer than the aim is about are not judged by it.
    fn of_programming(programming: &Programming) -> Vec<Self> {
        let [[ours, _], [theirs, _]] = [halves(&programming.ours), halves(&programming.theirs)];
        let by_time = (programming.routes >= AIM_COUNT).then(|| Self {
            of: format!("{} routes, ms (at most {})", programming.routes, AIM_ROUTES.as_millis()),
            measured: ours,
            is_kept: ours <= millis(AIM_ROUTES),
        });
        let by_tools = Self {
            of: "routes, time of ip -batch's (at most 1)".to_owned(),
            measured: ratio(ours, theirs),
            is_kept: ours <= theirs,
        };
        by_time.into_iter().chain([by_tools]).collect()
    }

    fn json(&self) -> Value {
        json!({"aim": self.of, "measured": rounded(self.measured), "kept": self.is_kept})
    }
}

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
    let (mut ways, mut aims) = (Vec::new(), Vec::new());
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
            if *mode == Mode::Plain {
                aims.push(Aim {
                    of: format!("not encapsulated, {name}: part of the bare way"),
                    measured: between,
                    is_kept: between >= LEAST_RATIO,
                });
            }
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
        "the aim without encapsulation is {LEAST_RATIO:.3} of the bare way; a way costs the same \
         machine both ends"
    );
    let mut json = json!({"benchmark": "overlay", "ways": ways, "load_average": load_average});
    if let Some(started) = started {
        add(&mut json, "programming", print_programming(programming, started));
        aims.extend(Aim::of_programming(programming));
    }
    let mut table = Table::new();
    table.set_header(["AIM", "MEASURED", ""]);
    for Aim { of, measured, is_kept } in &aims {
        let verdict = if *is_kept { "kept" } else { "missed" };
        table.add_row([of.clone(), format!("{measured:.3}"), verdict.to_owned()]);
    }
    println!("{table}");
    let aims: Vec<Value> = aims.iter().map(Aim::json).collect();
    add(&mut json, "aims", Value::Array(aims));
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
    fn aims_are_judged_by_medians_of_as_many_routes() {
        let took = |ms: &[u64]| {
            let took = |ms: &u64| Took { wall: Duration::from_millis(*ms), ..Took::default() };
            ms.iter().map(took).collect::<Vec<_>>()
        };
        let judged = |routes, ours: &[u64], theirs: &[u64]| {
            let (ours, theirs) = (took(ours), took(theirs));
            let aims = Aim::of_programming(&Programming { routes, ours, theirs });
            aims.iter().map(|aim| aim.is_kept).collect::<Vec<_>>()
        };
        assert_eq!(judged(4_000, &[900, 200, 100], &[300]), [true, true]);
        assert_eq!(judged(4_000, &[201], &[300]), [false, true]);
        assert_eq!(judged(4_000, &[150], &[149]), [true, false]);
        assert_eq!(judged(200, &[10], &[20]), [true]);
    }

    #[test]
    fn the_median_was_measured() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
        let (least, most) = ends(&[0.9, 0.7, 1.1]);
        assert!((least - 0.7).abs() < f64::EPSILON && (most - 1.1).abs() < f64::EPSILON);
    }
}
