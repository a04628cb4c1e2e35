//! The CNI configuration with its placeholders filled in.

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::settings::{KUBECONFIG, Settings};

/// What is installed where nothing else is given; the same as in our manifests.
const DEFAULT: &str = include_str!("../../../manifests/cni/10-calico.conflist");

/// Why a configuration cannot be installed; it is never quoted, since it may hold a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// It is no JSON.
    #[error(
        "the CNI configuration is no JSON once its placeholders are filled in ({0}); correct CNI_NETWORK_CONFIG"
    )]
    NoJson(serde_json::Error),
    /// It names no plugin.
    #[error(
        "the CNI configuration has neither `plugins` nor `type`, or no `name`; correct CNI_NETWORK_CONFIG"
    )]
    NoPlugin,
    /// A placeholder that nobody fills in.
    #[error("the CNI configuration has the placeholder {0}, which is unknown; take it out")]
    Unknown(String),
}

/// Returns the configuration to install; `given` is the text from elsewhere, if there is one.
///
/// # Errors
///
/// [`Unusable`] with what is wrong.
pub(crate) fn fill(
    settings: &Settings,
    given: Option<&str>,
    token: &secrecy::SecretString,
) -> Result<String, Unusable> {
    let mut text = given.unwrap_or(DEFAULT).to_owned();
    for (placeholder, value) in &settings.values {
        text = text.replace(placeholder, value);
    }
    let kubeconfig = settings.node_dir.join(KUBECONFIG);
    text = text.replace("__KUBECONFIG_FILEPATH__", &kubeconfig.to_string_lossy());
    text = text.replace("__KUBECONFIG_FILENAME__", KUBECONFIG);
    if let Some(unknown) = placeholder(&text) {
        return Err(Unusable::Unknown(unknown.to_owned()));
    }
    // Last, so that a token is never searched for placeholders.
    let text = text.replace(TOKEN, token.expose_secret());
    let value: Value = serde_json::from_str(&text).map_err(Unusable::NoJson)?;
    let has = |name: &str| value.get(name).is_some();
    let is_usable = has("name") && (has("plugins") || has("type"));
    if is_usable { Ok(text) } else { Err(Unusable::NoPlugin) }
}

/// The one placeholder that is not filled in before the last.
const TOKEN: &str = "__SERVICEACCOUNT_TOKEN__";

/// Returns a placeholder that is left: capitals and underscores between two of these.
fn placeholder(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c));
    let mut left = words
        .filter(|word| word.len() > 4 && word.starts_with("__") && word.ends_with("__"))
        .filter(|word| *word != TOKEN);
    left.next()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn filled(given: Option<&str>) -> Result<String, Unusable> {
        let pairs = [("KUBERNETES_NODE_NAME", "node-1"), ("CNI_MTU", "0")];
        let settings = super::super::settings::tests_settings(&pairs).unwrap();
        fill(&settings, given, &SecretString::from("canary"))
    }

    #[test]
    fn our_own_template_is_whole_once_it_is_filled_in() {
        let value: Value = serde_json::from_str(&filled(None).unwrap()).unwrap();
        let plugin = &value["plugins"][0];
        assert_eq!(plugin["nodename"], "node-1");
        assert_eq!(plugin["mtu"], 0);
        assert_eq!(plugin["kubernetes"]["kubeconfig"], "/etc/cni/net.d/calico-kubeconfig");
        assert_eq!(plugin["log_file_path"], "/var/log/calico/cni/cni.log");
    }

    #[test]
    fn calicos_other_placeholders_are_known() {
        let text = r#"{"name": "a", "type": "calico", "size": __LOG_FILE_MAX_SIZE__,
            "policy": {"k8s_auth_token": "__SERVICEACCOUNT_TOKEN__"},
            "group": "__CALICO_API_GROUP__", "file": "__KUBECONFIG_FILENAME__"}"#;
        let text = filled(Some(text)).unwrap();
        assert!(text.contains("canary") && text.contains("100"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_refused_without_the_token() {
        let token = r#""token": "__SERVICEACCOUNT_TOKEN__""#;
        for (text, says) in [
            (format!("{{{token}, "), "no JSON"),
            (format!("{{{token}}}"), "neither `plugins` nor `type`"),
            (format!("{{{token}, \"mtu\": \"__MY_MTU__\"}}"), "__MY_MTU__"),
        ] {
            let error = filled(Some(&text)).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("canary"), "{error}");
        }
    }
}
