//! The suite as data: topics of steps, read from YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lab::control_plane::Kind;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One file: steps that follow each other, in a namespace of their own.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// What happens, in this order.
    pub(crate) steps: Vec<Step>,
}

/// One request, or one look at a watch, with what both servers must answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// The fact that it proves; unique in its topic.
    #[serde(rename = "step")]
    pub(crate) name: String,
    /// Played on this server alone, and not compared: what a controller does elsewhere.
    #[serde(default, deserialize_with = "kind")]
    pub(crate) only: Option<Kind>,
    /// Who asks: `admin` (the default), `nobody` (no token), or a token, often a captured one.
    #[serde(default, rename = "as")]
    pub(crate) user: Option<String>,
    /// Method and path with query; absent for a look at a watch or a restart.
    #[serde(default)]
    pub(crate) request: Option<String>,
    /// Headers besides those that follow from the rest.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// A body that is sent as JSON.
    #[serde(default)]
    pub(crate) body: Option<Value>,
    /// A body that is sent as it stands.
    #[serde(default)]
    pub(crate) raw: Option<String>,
    /// Blanks that are added to the body, to make it large.
    #[serde(default)]
    pub(crate) blanks: usize,
    /// The status code.
    #[serde(default)]
    pub(crate) expect: u16,
    /// Whether the request is repeated until the status code comes.
    #[serde(default)]
    pub(crate) until: bool,
    /// Parts of the answer's body that later steps name as `${…}`: name → JSON pointer.
    #[serde(default)]
    pub(crate) capture: BTreeMap<String, String>,
    /// What parts of the answer's body must be: JSON pointer → text, which may name captures.
    #[serde(default)]
    pub(crate) check: BTreeMap<String, String>,
    /// Only entries of lists with these names are compared.
    #[serde(default)]
    pub(crate) named: Vec<String>,
    /// The answer is a watch, which later steps look at under this name.
    #[serde(default)]
    pub(crate) watch: Option<String>,
    /// The watch that this step looks at.
    #[serde(default)]
    pub(crate) events: Option<String>,
    /// How many events it waits for; none waits for the end of the watch.
    #[serde(default)]
    pub(crate) count: Option<usize>,
    /// The server is stopped and started again.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// Returns the directory of the suite.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/embedded-api/contract")
}

/// Reads all topics, in the order of their names.
pub(crate) fn topics() -> Vec<Topic> {
    let directory = directory().join("topics");
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let wanted = std::env::var("CONTRACT_TOPIC").ok();
    let topics = paths.iter().map(|path| topic(path));
    topics.filter(|topic| wanted.as_ref().is_none_or(|wanted| *wanted == topic.name)).collect()
}

/// Reads a YAML file of the suite.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn topic(path: &Path) -> Topic {
    let steps: Vec<Step> = read(path);
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "{name}: two steps have one name");
    }
    Topic { name, steps }
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Kind>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.map(Some).ok_or_else(|| D::Error::custom(format!("{name} is no kind of server")))
}
