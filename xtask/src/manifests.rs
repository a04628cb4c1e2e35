//! `manifests/calico.yaml`, put together from its parts: one file to apply, no part twice.
//!
//! `manifests/parts` has what is written by hand, `manifests/crds` the custom resource
//! definitions, `manifests/cni` what container runtimes are told.

use std::path::Path;

use crate::command::Failure;

/// What the file says of itself.
const HEADER: &str = "\
# Calico in Rust: pod network and policy for Kubernetes, in one file.
#
#   kubectl apply -f calico.yaml
#
# Objects have the names that Calico's manifest gives them, so that this replaces that.
# Written by `cargo xtask manifests` from the parts in this directory: change those.
";
/// The parts before and after the definitions: nothing is made before it is defined.
const FIRST: &[&str] = &["parts/config.yaml", "parts/rbac.yaml"];
const LAST: &[&str] = &["parts/node.yaml", "parts/kube-controllers.yaml"];
/// What is a value of the Helm chart: text of the parts, and what the chart has in its place.
const VALUES: &[(&str, &str)] = &[
    ("image: localhost/calico:0.1.0", "image: {{ .Values.image }}"),
    ("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.imagePullPolicy }}"),
    ("calico_backend: bird", "calico_backend: {{ .Values.backend }}"),
    ("veth_mtu: \"0\"", "veth_mtu: {{ .Values.mtu | quote }}"),
    (
        "name: CALICO_IPV4POOL_CIDR\n              value: \"\"",
        "name: CALICO_IPV4POOL_CIDR\n              value: {{ .Values.ipv4pool.cidr | quote }}",
    ),
    (
        "name: CALICO_IPV4POOL_IPIP\n              value: Always",
        "name: CALICO_IPV4POOL_IPIP\n              value: {{ .Values.ipv4pool.ipip }}",
    ),
    (
        "name: CALICO_IPV4POOL_VXLAN\n              value: Never",
        "name: CALICO_IPV4POOL_VXLAN\n              value: {{ .Values.ipv4pool.vxlan }}",
    ),
    (
        "name: FELIX_LOGSEVERITYSCREEN\n              value: Info",
        "name: FELIX_LOGSEVERITYSCREEN\n              value: {{ .Values.logLevel }}",
    ),
    (
        "rollingUpdate:\n      maxUnavailable: 1",
        "rollingUpdate:\n      maxUnavailable: {{ .Values.maxUnavailable }}",
    ),
    ("cpu: 250m", "cpu: {{ .Values.nodeCpuRequest }}"),
];

/// What is written: files, and what is in them.
fn written(root: &Path) -> Result<[(&'static str, String); 2], Failure> {
    let (objects, definitions) = (objects(root)?, definitions(root)?);
    let all = [objects.first.as_slice(), &definitions, &objects.last].concat();
    let chart = [objects.first, objects.last].concat();
    let chart = VALUES.iter().fold(joined(&chart), |text, (from, to)| text.replace(from, to));
    Ok([
        ("manifests/base/calico.yaml", format!("{HEADER}---\n{}", joined(&all))),
        ("manifests/helm/calico/templates/calico.yaml", chart),
    ])
}

/// Writes what is made of the parts.
pub(crate) fn write(root: &Path) -> Result<(), Failure> {
    for (name, text) in written(root)? {
        let path = root.join(name);
        std::fs::write(&path, text).map_err(|source| Failure::File { path, source })?;
    }
    Ok(())
}

/// Returns what is wrong with what is there.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let written = written(root)?;
    let is_stale = |(name, text): &&(&str, String)| read(root, name).ok().as_ref() != Some(text);
    let stale = written
        .iter()
        .filter(is_stale)
        .map(|(name, _)| format!("{name}: is not what its parts say; run `cargo xtask manifests`"));
    Ok(stale.collect())
}

/// The parts before and after the definitions.
struct Objects {
    first: Vec<String>,
    last: Vec<String>,
}

fn objects(root: &Path) -> Result<Objects, Failure> {
    let conflist = read(root, "manifests/cni/10-calico.conflist")?;
    let conflist: Vec<String> = conflist.lines().map(|line| format!("    {line}")).collect();
    let part = |name: &&str| {
        let text = read(root, &format!("manifests/{name}"))?;
        Ok(text.replace("__CONFLIST__", &conflist.join("\n")))
    };
    let first = FIRST.iter().map(part).collect::<Result<_, Failure>>()?;
    let last = LAST.iter().map(part).collect::<Result<_, Failure>>()?;
    Ok(Objects { first, last })
}

fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    format!("{}\n", parts.join("\n---\n"))
}

/// Returns the custom resource definitions in the order of their names.
fn definitions(root: &Path) -> Result<Vec<String>, Failure> {
    let dir = root.join("manifests/crds");
    let failed = |source| Failure::File { path: dir.clone(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| Failure::File { path: path.clone(), source })?;
        Ok(text.trim_start_matches("---\n").to_owned())
    };
    paths.iter().map(read).collect()
}

fn read(root: &Path, name: &str) -> Result<String, Failure> {
    let path = root.join(name);
    std::fs::read_to_string(&path).map_err(|source| Failure::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// Returns the value at a path of the chart's defaults, which are two levels deep at most.
    fn default(values: &str, path: &str) -> String {
        let mut names = path.split('.');
        let first = format!("{}:", names.next().unwrap());
        let mut lines = values.lines().skip_while(|line| !line.starts_with(&first));
        let line = match names.next() {
            Some(second) => {
                let second = format!("  {second}:");
                lines.find(|line| line.starts_with(&second)).unwrap()
            }
            None => lines.next().unwrap(),
        };
        line.split_once(": ").unwrap().1.trim_matches('"').to_owned()
    }

    #[test]
    fn the_charts_defaults_give_the_manifest() {
        let [(_, manifest), (_, chart)] = written(&root()).unwrap();
        let values = read(&root(), "manifests/helm/calico/values.yaml").unwrap();
        let (mut text, mut count) = (String::new(), 0);
        let mut rest = chart.as_str();
        while let Some((before, behind)) = rest.split_once("{{ .Values.") {
            let (name, after) = behind.split_once(" }}").unwrap();
            let value = match name.split_once(" | ") {
                Some((name, "quote")) => format!("\"{}\"", default(&values, name)),
                Some(other) => panic!("{other:?}"),
                None => default(&values, name),
            };
            text.extend([before, &value]);
            (rest, count) = (after, count + 1);
        }
        text.push_str(rest);
        assert!(count > VALUES.len(), "{count}");
        let (first, last) = text.split_once("\n---\n# One calico-node per node").unwrap();
        assert!(manifest.contains(first), "the first part differs");
        assert!(manifest.ends_with(last), "the last part differs");
    }

    #[test]
    fn every_value_has_a_default_and_a_rule() {
        let schema = read(&root(), "manifests/helm/calico/values.schema.json").unwrap();
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        let values = read(&root(), "manifests/helm/calico/values.yaml").unwrap();
        let names = values.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
        for name in names.filter(|name| !name.contains(['#', ' '])) {
            assert!(schema["properties"][name].is_object(), "{name} has no rule");
        }
        for (_, text) in VALUES {
            let (_, name) = text.split_once("{{ .Values.").unwrap();
            let name = name.split([' ', '.']).next().unwrap();
            assert!(schema["properties"][name].is_object(), "{name} has no rule");
        }
    }
}
