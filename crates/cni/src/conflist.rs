//! Lists of configurations, as runtimes keep them (CNI spec §1 "Configuration format").
//!
//! Plugins never see a list; whoever acts as a runtime does.

use serde_json::{Map, Value, json};

use crate::config::{Fields, InvalidConfig, name_of, plugin_type_of, read_object, version_of};
use crate::version::Version;

/// A list of plugins that are run one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigList {
    /// The newest version that the list and we have in common.
    pub version: Version,
    /// `name`: the network.
    pub name: String,
    /// `disableCheck`: CHECK must not be called.
    pub is_check_disabled: bool,
    /// `disableGC`: GC must not be called.
    pub is_gc_disabled: bool,
    /// `plugins`; never empty.
    pub plugins: Vec<ListedPlugin>,
}

/// A plugin in a list.
#[derive(Clone, PartialEq)]
pub struct ListedPlugin {
    /// `type`.
    pub plugin_type: String,
    object: Map<String, Value>,
}

impl std::fmt::Debug for ListedPlugin {
    /// Says the type only: the rest may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListedPlugin").field("type", &self.plugin_type).finish_non_exhaustive()
    }
}

impl ConfigList {
    /// Reads a `.conflist`, or a `.conf` as a list of one.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] at the first thing that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        let object = read_object(text)?;
        let fields = Fields::new("", &object);
        let name = name_of(&fields)?;
        let plugins = if fields.value("plugins").is_some() {
            fields.objects("plugins")?
        } else {
            vec![&object]
        };
        if plugins.is_empty() {
            return Err(fields.wrong("plugins", "list at least one plugin"));
        }
        let listed = |plugin: &Map<String, Value>| {
            let plugin_type = plugin_type_of(&Fields::new("plugins[]", plugin))?;
            Ok(ListedPlugin { plugin_type, object: plugin.clone() })
        };
        Ok(Self {
            version: newest_common(&fields)?,
            name,
            is_check_disabled: fields.truth("disableCheck")?.unwrap_or(false),
            is_gc_disabled: fields.truth("disableGC")?.unwrap_or(false),
            plugins: plugins.into_iter().map(listed).collect::<Result<_, InvalidConfig>>()?,
        })
    }

    /// Returns what `plugin` gets on standard input (spec §3 "Deriving execution configuration").
    ///
    /// `runtime` holds the runtime's values by capability; the plugin gets those it
    /// declares. `previous` is the result of the plugin before it, or of the ADD.
    #[must_use]
    pub fn execution_config(
        &self,
        plugin: &ListedPlugin,
        runtime: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Value {
        let mut object = plugin.object.clone();
        let capabilities = object.remove("capabilities");
        let declares = |name: &String| {
            capabilities.as_ref().and_then(|all| all.get(name)) == Some(&Value::Bool(true))
        };
        let wanted = runtime.iter().filter(|(name, _)| declares(name));
        let wanted: Map<_, _> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !wanted.is_empty() {
            object.insert("runtimeConfig".into(), Value::Object(wanted));
        }
        object.insert("cniVersion".into(), json!(self.version.as_str()));
        object.insert("name".into(), json!(self.name));
        if let Some(previous) = previous {
            object.insert("prevResult".into(), previous.clone());
        }
        Value::Object(object)
    }
}

fn newest_common(fields: &Fields<'_>) -> Result<Version, InvalidConfig> {
    let stated = version_of(fields);
    let offered = fields.texts("cniVersions")?;
    let common = offered.iter().filter_map(|text| text.parse().ok());
    let stated_or_none = stated.as_ref().ok().copied();
    common.chain(stated_or_none).max().map_or(stated, Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{
        "cniVersion": "0.3.1", "name": "k8s-pod-network",
        "plugins": [
            {"type": "calico", "policy": {"k8s_auth_token": "canary"}},
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true, "ips": false}}
        ]
    }"#;

    #[test]
    fn each_plugin_gets_its_own_configuration() {
        let list = ConfigList::parse(LIST.as_bytes()).unwrap();
        let runtime = json!({"portMappings": [{"hostPort": 80}], "ips": ["10.0.0.1"]});
        let previous = json!({"cniVersion": "0.3.1"});
        let derive = |index: usize| {
            list.execution_config(
                &list.plugins[index],
                runtime.as_object().unwrap(),
                Some(&previous),
            )
        };
        assert_eq!(
            derive(1),
            json!({
                "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "portmap", "snat": true,
                "runtimeConfig": {"portMappings": [{"hostPort": 80}]},
                "prevResult": {"cniVersion": "0.3.1"},
            })
        );
        assert_eq!(derive(0).get("runtimeConfig"), None);
    }

    #[test]
    fn debug_hides_what_plugins_are_told() {
        let list = ConfigList::parse(LIST.as_bytes()).unwrap();
        assert!(!format!("{list:?}").contains("canary"));
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let version = |versions: &str| {
            let text = format!(r#"{{"name":"n","type":"t",{versions}}}"#);
            ConfigList::parse(text.as_bytes()).map(|list| list.version)
        };
        assert_eq!(
            version(r#""cniVersion":"0.4.0","cniVersions":["1.0.0","9.0.0"]"#),
            Ok(Version::V1_0_0)
        );
        assert_eq!(version(r#""cniVersion":"9.0.0","cniVersions":["0.3.1"]"#), Ok(Version::V0_3_1));
        assert!(version(r#""cniVersion":"9.0.0""#).is_err());
    }

    #[test]
    fn wrong_lists_are_told_so() {
        let cases = [
            (
                r#"{"name":"n","plugins":[]}"#,
                "network configuration has `plugins` = a list: list at least one plugin",
            ),
            (
                r#"{"name":"n","plugins":{}}"#,
                "network configuration has `plugins` = an object: use a list of objects",
            ),
            (
                r#"{"name":"n","plugins":[{}]}"#,
                "network configuration has no `plugins[].type`: add it",
            ),
            (
                r#"{"name":"n","plugins":[{"type":"../x"}]}"#,
                "network configuration has `plugins[].type` = \"../x\": use the name of a program in CNI_PATH, without any path",
            ),
            (r#"{"plugins":[{"type":"x"}]}"#, "network configuration has no `name`: add it"),
        ];
        for (text, message) in cases {
            assert_eq!(ConfigList::parse(text.as_bytes()).unwrap_err().to_string(), message);
        }
    }
}
