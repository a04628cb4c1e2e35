//! The findings as tables for people and as one line of JSON for programs.

use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};

use super::chain::Row;
use super::device::Device;
use super::{Findings, fib, name_of, reflector};
use crate::statistics::{ratio, rounded};

/// Prints the tables and, last, the line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(super) fn print(findings: &Findings) {
    println!("{}\n\n{}\n", chains(&findings.rows), reflectors(&findings.reflectors));
    println!("{}\n", installs(&findings.installs));
    for left in &findings.left_out {
        println!("not measured: {left}");
    }
    let [before, after] = &findings.load_average;
    println!("load average before and after: {before}, {after}\n\n{}", to_json(findings));
}

fn chains(rows: &[Row]) -> Table {
    let mut table = table([
        "routes",
        "attributes",
        "sessions",
        "device",
        "all s",
        "gone s",
        "MiB",
        "CPU s",
        "ours / its time",
        "memory",
    ]);
    for row in rows {
        let ours = rows.iter().find(|other| {
            other.device == Device::Ours
                && (other.routes, other.words, other.session)
                    == (row.routes, row.words, row.session)
        });
        let [_, loaded] = row.resident_kib;
        let time =
            ours.and_then(|ours| Some(ratio(ours.all?.as_secs_f64(), row.all?.as_secs_f64())));
        let memory = ours.map(|ours| ratio(float(ours.resident_kib[1]), float(loaded)));
        table.add_row([
            row.routes.to_string(),
            name_of(&row.words),
            name_of(&row.session),
            row.device.name(),
            seconds(row.all),
            seconds(row.withdrawn),
            format!("{:.1}", float(loaded) / 1024.0),
            seconds(Some(row.cpu)),
            time.map_or_else(String::new, |time| format!("{time:.2}")),
            memory.map_or_else(String::new, |memory| format!("{memory:.2}")),
        ]);
    }
    table
}

fn reflectors(rows: &[reflector::Row]) -> Table {
    let mut table = table(["clients", "routes", "reflector", "all s", "MiB idle", "MiB", "CPU s"]);
    for row in rows {
        let [idle, loaded] = row.resident_kib;
        table.add_row([
            row.clients.to_string(),
            row.routes.to_string(),
            row.device.name(),
            seconds(Some(row.all)),
            format!("{:.1}", float(idle) / 1024.0),
            format!("{:.1}", float(loaded) / 1024.0),
            seconds(Some(row.cpu)),
        ]);
    }
    table
}

fn installs(rows: &[fib::Row]) -> Table {
    let mut table =
        table(["into the kernel", "device", "all s", "gone s", "MiB idle", "MiB", "CPU s"]);
    for row in rows {
        let [idle, loaded] = row.resident_kib;
        table.add_row([
            row.routes.to_string(),
            row.device.name(),
            seconds(row.all),
            seconds(row.gone),
            format!("{:.1}", float(idle) / 1024.0),
            format!("{:.1}", float(loaded) / 1024.0),
            seconds(Some(row.cpu)),
        ]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "too long".to_owned(), |each| format!("{:.2}", each.as_secs_f64()))
}

fn float(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::MAX, f64::from)
}

fn to_json(findings: &Findings) -> Value {
    let secs = |duration: Duration| rounded(duration.as_secs_f64());
    let chain = |row: &Row| {
        json!({
            "device": row.device.name(), "sessions": name_of(&row.session),
            "attributes": name_of(&row.words), "routes": row.routes,
            "all_s": row.all.map(secs), "withdrawn_s": row.withdrawn.map(secs),
            "resident_kib": row.resident_kib, "cpu_s": secs(row.cpu),
        })
    };
    let reflector = |row: &reflector::Row| {
        json!({
            "device": row.device.name(), "clients": row.clients, "routes": row.routes,
            "all_s": secs(row.all), "resident_kib": row.resident_kib, "cpu_s": secs(row.cpu),
        })
    };
    let install = |row: &fib::Row| {
        json!({
            "device": row.device.name(), "routes": row.routes, "all_s": row.all.map(secs),
            "withdrawn_s": row.gone.map(secs), "resident_kib": row.resident_kib,
            "cpu_s": secs(row.cpu),
        })
    };
    json!({
        "benchmark": "bgp",
        "chains": findings.rows.iter().map(chain).collect::<Vec<_>>(),
        "reflectors": findings.reflectors.iter().map(reflector).collect::<Vec<_>>(),
        "installs": findings.installs.iter().map(install).collect::<Vec<_>>(),
        "left_out": findings.left_out,
        "load_average": findings.load_average,
    })
}
