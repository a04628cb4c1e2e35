//! The image of this project: the one place that says what is in it.
//!
//! All programs are in one image, since they share what they are made of. `install-cni` is a
//! name of `calico-node`, and `calico-ipam` one of `calico`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Entry, Image, Layer};

/// The programs of this repository that go into /usr/bin.
pub const PROGRAMS: &[&str] = &["calico-kube-controllers", "calico-node", "calicoctl"];
/// The program with the CNI plugins of this repository.
pub const PLUGIN: &str = "calico";
/// The other name by which it is called.
const IPAM_PLUGIN: &str = "calico-ipam";
/// The reference plugins that Calico's image carries too.
pub const REFERENCE_PLUGINS: &[&str] =
    &["bandwidth", "host-local", "loopback", "portmap", "tuning"];
/// Where plugins are in the image, for `install-cni` to copy from.
const PLUGIN_DIR: &str = "opt/cni/bin";

/// Returns the image by a name with a tag, of programs and reference plugins in directories.
#[must_use]
pub fn image(name: &str, programs: &Path, reference_plugins: &Path) -> Image {
    let plugins = REFERENCE_PLUGINS.iter().fold(Layer::default(), |layer, plugin| {
        layer.with_program(&format!("{PLUGIN_DIR}/{plugin}"), reference_plugins.join(plugin))
    });
    let ours = Layer::default()
        .with_program(&format!("{PLUGIN_DIR}/{PLUGIN}"), programs.join(PLUGIN))
        .with(&format!("{PLUGIN_DIR}/{IPAM_PLUGIN}"), Entry::Link { to: PLUGIN.to_owned() });
    let ours = PROGRAMS.iter().fold(ours, |layer, program| {
        layer.with_program(&format!("usr/bin/{program}"), programs.join(program))
    });
    let node = || Entry::Link { to: "/usr/bin/calico-node".to_owned() };
    let ours = ours
        .with("usr/bin/install-cni", node())
        // What Calico's manifests call.
        .with(&format!("{PLUGIN_DIR}/install"), node());
    Image {
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        command: vec!["/usr/bin/calico-node".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
        labels: labels(),
        layers: vec![base(), plugins, ours],
    }
}

/// What programs find in every system: users, places, and where to look for names.
fn base() -> Layer {
    let link = |to: &str| Entry::Link { to: to.to_owned() };
    Layer::default()
        .with("bin", link("usr/bin"))
        .with("sbin", link("usr/bin"))
        .with("lib", link("usr/lib"))
        .with("lib64", link("usr/lib64"))
        .with("tmp", Entry::Directory { mode: 0o1777 })
        .with("usr/lib", Entry::Directory { mode: 0o755 })
        .with("usr/lib64", Entry::Directory { mode: 0o755 })
        .with_text(
            "etc/passwd",
            "root:x:0:0:root:/:/sbin/nologin\ncalico:x:999:999::/:/sbin/nologin\n",
        )
        .with_text("etc/group", "root:x:0:\ncalico:x:999:\n")
        .with_text("etc/nsswitch.conf", "hosts: files dns\n")
}

fn labels() -> BTreeMap<String, String> {
    let labels = [
        ("title", "Calico in Rust"),
        ("description", "Pod network and policy for Kubernetes"),
        ("licenses", "Apache-2.0"),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let label =
        |(key, value): (&str, &str)| (format!("org.opencontainers.image.{key}"), value.to_owned());
    labels.into_iter().map(label).collect()
}
