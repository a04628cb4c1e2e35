//! How results are printed: tables for people, JSON and YAML for programs.

use std::io::{self, Write as _};

use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use crate::Error;

/// How to print a result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// RFC 8259.
    Json,
    /// YAML 1.2.
    Yaml,
}

/// What a command has found out.
pub trait Report: Serialize {
    /// Returns it for people, without a newline at the end.
    fn text(&self) -> String;
}

/// Returns a result as it is printed.
///
/// # Errors
///
/// [`Error::Unprintable`].
pub fn render(report: &impl Report, format: Format) -> Result<String, Error> {
    match format {
        Format::Table => Ok(report.text()),
        Format::Json | Format::Yaml => render_value(report, format),
    }
}

/// Returns anything as programs read it; where a table is asked for, as YAML.
///
/// # Errors
///
/// [`Error::Unprintable`].
pub fn render_value(value: &impl Serialize, format: Format) -> Result<String, Error> {
    match format {
        Format::Json => serde_json::to_string_pretty(value)
            .map_err(|error| Error::Unprintable(error.to_string())),
        Format::Table | Format::Yaml => serde_saphyr::to_string(value)
            .map(|text| text.trim_end().to_owned())
            .map_err(|error| Error::Unprintable(error.to_string())),
    }
}

/// Prints a result to standard output.
///
/// # Errors
///
/// [`Error::Unprintable`]; not if the reader has gone, who then has seen enough.
pub fn print(text: &str) -> Result<(), Error> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Unprintable(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Draws a grid as Calico's program does: heads centred, numbers to the right.
#[must_use]
pub fn grid(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let mut style = ASCII_FULL_CONDENSED;
    style = style.header_separator(comfy_table::LineStyle::new('+', '-', '+', '+'));
    table.load_style(style);
    let head = |text: &&str| Cell::new(text).set_alignment(CellAlignment::Center);
    table.set_header(heads.iter().map(head).collect::<Vec<Cell>>());
    for row in rows {
        table.add_row(row.into_iter().map(cell).collect::<Vec<Cell>>());
    }
    table.to_string()
}

fn cell(text: String) -> Cell {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let alignment = if is_number { CellAlignment::Right } else { CellAlignment::Left };
    Cell::new_owned(text).set_alignment(alignment)
}

/// Writes a count; more than nine digits become a power of ten.
///
/// Differs from Calico: that begins at six digits, so one address more or less in a large pool
/// does not show.
#[must_use]
pub fn count(number: u128) -> String {
    if number < 1_000_000_000 {
        return number.to_string();
    }
    let digits = number.to_string();
    let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
    let mantissa = rest.get(..4).unwrap_or(rest);
    format!("{first}.{mantissa}e+{:02}", rest.len())
}

/// Writes a count and the share of `total` that it is: `6 (0%)`.
#[must_use]
pub fn share(number: u128, total: u128) -> String {
    let percent = percent(number, total);
    format!("{} ({percent}%)", count(number))
}

/// Returns the share of `total` in percent, rounded to the nearest.
#[must_use]
pub fn percent(number: u128, total: u128) -> u128 {
    // Pools of IPv6 are so large that a hundred times their size would not fit.
    let (number, total) =
        if total > u128::MAX >> 8 { (number >> 8, total >> 8) } else { (number, total) };
    let half = total.checked_div(2).unwrap_or_default();
    number.saturating_mul(100).saturating_add(half).checked_div(total).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_until_nobody_can_read_them() {
        for (number, text) in [
            (0, "0"),
            (65_530, "65530"),
            (131_072, "131072"),
            (999_999_999, "999999999"),
            (1_000_000_000, "1.0000e+09"),
            (1 << 80, "1.2089e+24"),
            (u128::MAX, "3.4028e+38"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn shares_are_rounded() {
        for (number, total, text) in [
            (6, 65_536, "6 (0%)"),
            (65_530, 65_536, "65530 (100%)"),
            (1, 2, "1 (50%)"),
            (1, 3, "1 (33%)"),
            (2, 3, "2 (67%)"),
            (0, 0, "0 (0%)"),
            (u128::MAX, u128::MAX, "3.4028e+38 (100%)"),
        ] {
            assert_eq!(share(number, total), text);
        }
    }

    #[test]
    fn grids_look_like_calicos() {
        let rows = [
            vec!["StrictAffinity".to_owned(), "false".to_owned()],
            vec!["MaxBlocksPerHost".to_owned(), "0".to_owned()],
        ];
        let expected = "\
+------------------+-------+
|     PROPERTY     | VALUE |
+------------------+-------+
| StrictAffinity   | false |
| MaxBlocksPerHost |     0 |
+------------------+-------+";
        assert_eq!(grid(&["PROPERTY", "VALUE"], rows), expected);
    }
}
