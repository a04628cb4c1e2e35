//! Where settings come from, which source wins, and what is wrong with a value.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::table::{Names, Parameter};

/// Everything that may hold settings, from the strongest source to the weakest.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Environment variables by name.
    environment: BTreeMap<String, String>,
    /// `/etc/calico/felix.cfg`, by Felix's name of the setting in upper case.
    file: BTreeMap<String, String>,
    /// The specification of `FelixConfiguration` named `node.<name>`.
    node: BTreeMap<String, Value>,
    /// The specification of `FelixConfiguration` named `default`.
    cluster: BTreeMap<String, Value>,
}

impl Sources {
    /// Starts with environment variables; an empty one counts as not set.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let environment = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { environment, ..Self::default() }
    }

    /// Adds the text of `felix.cfg`: `Name = value` on each line, after `[section]`
    /// lines, with comments behind `#` or `;` at the start of a line.
    #[must_use]
    pub fn with_file(mut self, text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
        let pairs = lines.filter_map(|line| line.split_once('='));
        self.file = pairs
            .map(|(name, value)| (name.trim().to_uppercase(), value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        self
    }

    /// Adds the fields of `FelixConfiguration` `node.<name>`; null counts as not set.
    #[must_use]
    pub fn with_node(mut self, fields: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.node = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        self
    }

    /// Adds the fields of `FelixConfiguration` `default`; null counts as not set.
    #[must_use]
    pub fn with_cluster(mut self, fields: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.cluster = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        self
    }

    /// Returns the value that decides about the setting with these names, if any.
    pub(crate) fn find(&self, names: Names) -> Option<(Place, Value)> {
        let text = |value: &String| Value::String(value.clone());
        for variable in names.variables() {
            if let Some(value) = self.environment.get(&variable) {
                return Some((Place::Environment(variable), text(value)));
            }
        }
        let field = names.field()?;
        for key in names.file_keys() {
            if let Some(value) = self.file.get(&key) {
                return Some((Place::File(key), text(value)));
            }
        }
        let node = self.node.get(field).map(|value| (Place::Node(field.to_owned()), value.clone()));
        node.or_else(|| {
            let value = self.cluster.get(field)?.clone();
            Some((Place::Cluster(field.to_owned()), value))
        })
    }

    /// Returns a problem for each setting of Felix that no parameter knows, such as a
    /// misspelt one.
    pub(crate) fn unknown(&self, parameters: &[Parameter]) -> Vec<Problem> {
        let variables = parameters.iter().flat_map(|parameter| parameter.names.variables());
        let variables: Vec<String> = variables.collect();
        let is_field =
            |name: &str| parameters.iter().any(|parameter| parameter.names.field() == Some(name));
        let is_variable = |name: &str| variables.iter().any(|variable| variable == name);
        let environment = self.environment.keys().filter(|name| name.starts_with("FELIX_"));
        let environment = environment
            .filter(|name| !is_variable(name))
            .map(|name| Place::Environment(name.clone()));
        let file = self.file.keys().filter(|name| !is_variable(&format!("FELIX_{name}")));
        let node = self.node.keys().filter(|name| !is_field(name));
        let cluster = self.cluster.keys().filter(|name| !is_field(name));
        environment
            .chain(file.map(|name| Place::File(name.clone())))
            .chain(node.map(|name| Place::Node(name.clone())))
            .chain(cluster.map(|name| Place::Cluster(name.clone())))
            .map(Problem::Unknown)
            .collect()
    }
}

/// Where one value stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// An environment variable.
    Environment(String),
    /// A line of `felix.cfg`.
    File(String),
    /// A field of `FelixConfiguration` `node.<name>`.
    Node(String),
    /// A field of `FelixConfiguration` `default`.
    Cluster(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(name) => write!(f, "felix.cfg, {name}"),
            Self::Node(name) => write!(f, "FelixConfiguration of this node, field {name}"),
            Self::Cluster(name) => write!(f, "FelixConfiguration default, field {name}"),
        }
    }
}

/// A setting that could not be taken as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// The value is refused.
    Invalid {
        /// Where it stands.
        place: Place,
        /// What it is.
        value: String,
        /// What is allowed.
        allowed: String,
        /// What is used instead.
        default: String,
    },
    /// Nobody knows the setting.
    Unknown(Place),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { place, value, allowed, default } => {
                write!(f, "{place}: `{value}` is refused; use {allowed} (default: {default})")
            }
            Self::Unknown(place) => write!(
                f,
                "{place}: no such setting, ignored; docs/configuration.md lists those there are"
            ),
        }
    }
}
