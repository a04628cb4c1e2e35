//! Golden files: whole ones, and those with an input on one line, what is said of it on the
//! next, then an empty line.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Compares what `answer` says of each input in a file with what the file says.
pub(crate) fn check(name: &str, answer: impl Fn(&str) -> String) {
    let expected = fs::read_to_string(path(name)).unwrap();
    let inputs = expected.split("\n\n").filter_map(|case| case.lines().next());
    let case = |input: &str| format!("{input}\n{}\n\n", answer(input));
    let actual: String = inputs.map(case).collect();
    compare(name, &actual);
}

/// Compares a whole file with what it should hold.
pub(crate) fn compare(name: &str, actual: &str) {
    let path = path(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} (UPDATE_GOLDEN=1 rewrites it)", path.display());
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/cni").join(name)
}
