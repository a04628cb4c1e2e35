//! Facts about tables: golden texts, and histories against tables made at once.

mod cases;
mod histories;
mod simulated;

use std::path::Path;

use model::desired::policy::PolicyState;
use model::ruleset::Tables;

use crate::{Settings, render};

/// Writes all tables as nft(8) would list them.
fn text(tables: &Tables) -> String {
    tables.iter().map(|(family, ruleset)| ruleset.text(*family)).collect()
}

/// Compares the tables of `state` with `testdata/render/<name>.txt`.
#[expect(clippy::disallowed_methods, reason = "only tests write golden files")]
fn golden(name: &str, state: &PolicyState, settings: &Settings) {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/render");
    let path = Path::new(dir).join(format!("{name}.txt"));
    let actual = text(&render(state, settings));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "UPDATE_GOLDEN=1 rewrites {}", path.display());
}
