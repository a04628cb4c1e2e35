//! One call of the plugin, with what every command needs of it.

use std::path::PathBuf;

use cni::delegate;
use cni::environment::{Attachment, Netns, PodRef};
use cni::{Environment, Error, ErrorCode, NetworkConfig};
use model::net::IfName;

use crate::trace::Trace;

/// What the names of all hosts' sides begin with unless `FELIX_INTERFACEPREFIX` says otherwise.
const DEFAULT_PREFIX: &str = "cali";

/// A call about one attachment.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// Which attachment of which container.
    pub(crate) attachment: &'a Attachment,
    /// The container's namespace, if it is known.
    pub(crate) netns: Option<&'a Netns>,
    /// Where to look for the IPAM plugin.
    pub(crate) path: &'a [PathBuf],
    /// How to do it.
    pub(crate) config: &'a NetworkConfig,
    /// The host's side of the veth.
    pub(crate) host_name: IfName,
    /// Where the time goes.
    pub(crate) trace: &'a Trace,
}

impl<'a> Call<'a> {
    /// Gathers what the command needs.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidEnvironment`] if `FELIX_INTERFACEPREFIX` is wrong.
    pub(crate) fn new(
        environment: &'a Environment,
        attachment: &'a Attachment,
        netns: Option<&'a Netns>,
        config: &'a NetworkConfig,
        trace: &'a Trace,
    ) -> Result<Self, Error> {
        let prefixes = std::env::var("FELIX_INTERFACEPREFIX").unwrap_or_default();
        let host_name = host_name(attachment, first_prefix(&prefixes))?;
        Ok(Self { attachment, netns, path: &environment.path, config, host_name, trace })
    }

    /// Returns the pod, if the container is one.
    pub(crate) fn pod(&self) -> Option<&'a PodRef> {
        self.attachment.args.pod.as_ref()
    }

    /// Returns the pod's namespace and name, if the container is one.
    pub(crate) fn pod_name(&self) -> Option<(String, String)> {
        self.pod().map(|pod| (pod.name.namespace.clone(), pod.name.name.clone()))
    }

    /// Returns the call of the IPAM plugin that goes with this one.
    pub(crate) fn delegate(&self, command: &'static str) -> delegate::Call<'_> {
        let args = self.attachment.args.to_string();
        // Plugins that know no Kubernetes would refuse its keys.
        let args = if self.attachment.args.get("IgnoreUnknown").is_some() {
            args
        } else if args.is_empty() {
            "IgnoreUnknown=1".to_owned()
        } else {
            format!("{args};IgnoreUnknown=1")
        };
        delegate::Call {
            command,
            attachment: Some(self.attachment),
            netns: self.netns,
            args,
            path: self.path,
        }
    }

    /// Returns the name of the IPAM plugin, if one is configured.
    pub(crate) fn ipam_type(&self) -> Option<&'a str> {
        self.config.ipam.as_ref().map(|ipam| ipam.plugin_type.as_str())
    }
}

/// Returns the name of the host's side: by the pod, or else by the container.
fn host_name(attachment: &Attachment, prefix: &str) -> Result<IfName, Error> {
    let name = if let Some(pod) = &attachment.args.pod {
        api::names::host_veth_name(&pod.name.namespace, &pod.name.name, prefix)
    } else {
        let id: String = attachment.container_id.as_str().chars().take(11).collect();
        format!("{prefix}{id}").parse().ok()
    };
    name.ok_or_else(|| {
        let message = format!(
            "FELIX_INTERFACEPREFIX begins with `{prefix}`: use at most 4 characters that an \
             interface's name may have"
        );
        Error::new(ErrorCode::InvalidEnvironment, message)
    })
}

fn first_prefix(prefixes: &str) -> &str {
    let first = prefixes.split(',').next().unwrap_or_default().trim();
    if first.is_empty() { DEFAULT_PREFIX } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(args: &str) -> Attachment {
        Attachment {
            container_id: "0123456789abcdef".parse().unwrap(),
            if_name: "eth0".parse().unwrap(),
            args: args.parse().unwrap(),
        }
    }

    fn name(args: &str, prefixes: &str) -> String {
        host_name(&attachment(args), first_prefix(prefixes)).unwrap().to_string()
    }

    #[test]
    fn hosts_sides_are_called_as_calico_calls_them() {
        let nginx = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx";
        assert_eq!(name(nginx, ""), "calic440f455693");
        assert_eq!(name(nginx, "eni,cali"), "enic440f455693");
        assert_eq!(name("", ""), "cali0123456789a");
    }

    #[test]
    fn long_prefixes_are_refused() {
        let error = host_name(&attachment(""), "calico").unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidEnvironment);
    }
}
