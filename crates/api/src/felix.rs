//! `FelixConfiguration`: settings of all nodes or of one; `config` knows what they mean.

use k8s_openapi::ClusterResourceScope;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Kind, Object};

/// Settings of all nodes (`default`) or of one (`node.<name>`).
pub type FelixConfiguration = Object<FelixConfigurationSpec>;

/// The spec of a [`FelixConfiguration`]: every field by its name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct FelixConfigurationSpec {
    /// The fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Kind for FelixConfigurationSpec {
    const KIND: &'static str = "FelixConfiguration";
    const PLURAL: &'static str = "felixconfigurations";
    type Scope = ClusterResourceScope;
}

impl FelixConfiguration {
    /// Returns the fields that are set.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.spec.fields.iter().map(|(name, value)| (name.as_str(), value))
    }
}
