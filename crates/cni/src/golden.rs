//! Golden files: an input on one line, what is said of it on the next, then an empty line.

use std::path::Path;
use std::{env, fs};

/// Compares what `answer` says of each input in a file with what the file says.
pub(crate) fn check(name: &str, answer: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/cni").join(name);
    let expected = fs::read_to_string(&path).unwrap();
    let inputs = expected.split("\n\n").filter_map(|case| case.lines().next());
    let case = |input: &str| format!("{input}\n{}\n\n", answer(input));
    let actual: String = inputs.map(case).collect();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).unwrap();
    } else {
        assert_eq!(actual, expected, "{} (UPDATE_GOLDEN=1 rewrites it)", path.display());
    }
}
