//! Objects as lines of a table, with Calico's columns.

use serde_json::Value;

/// A column: its head, and where in an object its text is.
type Column = (&'static str, &'static str);

const NAME: Column = ("NAME", "/metadata/name");

/// The columns of kinds: those of a short table, then those of a wide one; nothing there is the
/// same as in the short one. Kinds that are not here show their name.
const COLUMNS: [(&[&str], &[Column], &[Column]); 13] = [
    (
        &["IPPool"],
        &[NAME, ("CIDR", "/spec/cidr"), ("SELECTOR", "/spec/nodeSelector")],
        &[
            NAME,
            ("CIDR", "/spec/cidr"),
            ("NAT", "/spec/natOutgoing?false"),
            ("IPIPMODE", "/spec/ipipMode?Never"),
            ("VXLANMODE", "/spec/vxlanMode?Never"),
            ("DISABLED", "/spec/disabled?false"),
            ("DISABLEBGPEXPORT", "/spec/disableBGPExport?false"),
            ("SELECTOR", "/spec/nodeSelector"),
            ("ASSIGNMENTMODE", "/spec/assignmentMode?Automatic"),
            ("VRF", "/metadata/annotations/vrf.projectcalico.org~1name"),
        ],
    ),
    (
        &["BGPPeer"],
        &[
            NAME,
            ("PEERIP", "/spec/peerIP"),
            ("NODE", "/spec/node?/spec/nodeSelector?(global)"),
            ("ASN", "/spec/asNumber?0"),
        ],
        &[],
    ),
    (
        &["BGPConfiguration"],
        &[
            NAME,
            ("LOGSEVERITY", "/spec/logSeverityScreen"),
            ("MESHENABLED", "/spec/nodeToNodeMeshEnabled?-"),
            ("ASNUMBER", "/spec/asNumber?-"),
        ],
        &[],
    ),
    (
        &[
            "NetworkPolicy",
            "GlobalNetworkPolicy",
            "StagedNetworkPolicy",
            "StagedGlobalNetworkPolicy",
        ],
        &[NAME, ("TIER", "/spec/tier?default")],
        &[
            NAME,
            ("TIER", "/spec/tier?default"),
            ("ORDER", "/spec/order"),
            ("SELECTOR", "/spec/selector"),
        ],
    ),
    (
        &["HostEndpoint"],
        &[NAME, ("NODE", "/spec/node")],
        &[
            NAME,
            ("NODE", "/spec/node"),
            ("INTERFACE", "/spec/interfaceName"),
            ("IPS", "/spec/expectedIPs"),
            ("PROFILES", "/spec/profiles"),
        ],
    ),
    (
        &["ClusterInformation"],
        &[
            NAME,
            ("CLUSTERGUID", "/spec/clusterGUID"),
            ("CLUSTERTYPE", "/spec/clusterType"),
            ("CALICOVERSION", "/spec/calicoVersion"),
            ("DATASTOREREADY", "/spec/datastoreReady"),
        ],
        &[],
    ),
    (&["Tier"], &[NAME, ("ORDER", "/spec/order")], &[]),
    (&["NetworkSet", "GlobalNetworkSet"], &[NAME], &[NAME, ("NETS", "/spec/nets")]),
    (&["IPReservation"], &[NAME], &[NAME, ("CIDRS", "/spec/reservedCIDRs")]),
    (
        &["IPAMConfiguration"],
        &[
            NAME,
            ("STRICTAFFINITY", "/spec/strictAffinity"),
            ("AUTOALLOCATEBLOCKS", "/spec/autoAllocateBlocks"),
            ("MAXBLOCKSPERHOST", "/spec/maxBlocksPerHost?0"),
        ],
        &[],
    ),
    (
        &["BlockAffinity"],
        &[NAME, ("NODE", "/spec/node"), ("CIDR", "/spec/cidr"), ("STATE", "/spec/state")],
        &[],
    ),
    (
        &["Node"],
        &[NAME],
        &[
            NAME,
            ("ASN", "/spec/bgp/asNumber?(64512)"),
            ("IPV4", "/spec/bgp/ipv4Address"),
            ("IPV6", "/spec/bgp/ipv6Address"),
        ],
    ),
    (
        &["WorkloadEndpoint"],
        &[
            ("WORKLOAD", "/spec/pod?/spec/containerID"),
            ("NODE", "/spec/node"),
            ("NETWORKS", "/spec/ipNetworks"),
            ("INTERFACE", "/spec/interfaceName"),
        ],
        &[
            NAME,
            ("WORKLOAD", "/spec/pod?/spec/containerID"),
            ("NODE", "/spec/node"),
            ("NETWORKS", "/spec/ipNetworks"),
            ("INTERFACE", "/spec/interfaceName"),
            ("PROFILES", "/spec/profiles"),
        ],
    ),
];

/// Returns the columns of a kind, those of a short table and those of a wide one.
fn columns(kind: &str) -> (&'static [Column], &'static [Column]) {
    let found = COLUMNS.iter().find(|(kinds, ..)| kinds.contains(&kind));
    match found {
        None => (&[NAME], &[NAME]),
        Some((_, short, [])) => (short, short),
        Some((_, short, wide)) => (short, wide),
    }
}

/// Which columns to show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Width {
    /// The most important.
    Short,
    /// More.
    Wide,
    /// These.
    Custom(Vec<String>),
}

/// Draws a table; `has_namespaces` puts them in front.
///
/// # Errors
///
/// The heads that there are, if one is asked for that is not among them.
pub(crate) fn draw(
    kind: &str,
    objects: &[Value],
    width: &Width,
    has_namespaces: bool,
) -> Result<String, String> {
    let (short, wide) = columns(kind);
    let mut chosen: Vec<Column> = match width {
        Width::Short => short.to_vec(),
        Width::Wide => wide.to_vec(),
        Width::Custom(heads) => {
            let find = |head: &String| {
                let mut all = wide.iter().chain(short);
                let found = all.find(|(known, _)| known.eq_ignore_ascii_case(head)).copied();
                let known: Vec<&str> = wide.iter().map(|(head, _)| *head).collect();
                found.ok_or_else(|| {
                    format!("{kind} has no column `{head}`: use some of {}", known.join(","))
                })
            };
            heads.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    if has_namespaces {
        chosen.insert(0, ("NAMESPACE", "/metadata/namespace"));
    }
    let heads = chosen.iter().map(|(head, _)| (*head).to_owned()).collect();
    let row = |object: &Value| chosen.iter().map(|(_, path)| text(object, path)).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(objects.iter().map(row)).collect();
    Ok(aligned(&lines))
}

/// Returns what is at one of several paths, which `?` separates; the last may be a text.
fn text(object: &Value, paths: &str) -> String {
    for path in paths.split('?') {
        if !path.starts_with('/') {
            return path.to_owned();
        }
        match object.pointer(path) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => return text.clone(),
            Some(Value::Array(list)) => {
                let texts: Vec<String> = list
                    .iter()
                    .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                    .collect();
                return texts.join(",");
            }
            Some(other) => return other.to_string(),
        }
    }
    String::new()
}

/// Fills columns up with blanks, three behind the longest text.
fn aligned(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            let length = cell.chars().count();
            match widths.get_mut(index) {
                Some(width) => *width = length.max(*width),
                None => widths.push(length),
            }
        }
    }
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_have_calicos_columns() {
        let pools = [
            json!({"metadata": {"name": "default-ipv4-ippool"}, "spec": {
                "cidr": "10.244.0.0/16", "nodeSelector": "all()", "natOutgoing": true,
            }}),
            json!({"metadata": {"name": "six"}, "spec": {"cidr": "fd00::/64", "nodeSelector": "all()"}}),
        ];
        let expected = "\
NAME                  CIDR            SELECTOR
default-ipv4-ippool   10.244.0.0/16   all()
six                   fd00::/64       all()";
        assert_eq!(draw("IPPool", &pools, &Width::Short, false).unwrap(), expected);
        let wide = draw("IPPool", &pools, &Width::Wide, false).unwrap();
        let first: Vec<&str> = wide.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            first,
            [
                "default-ipv4-ippool",
                "10.244.0.0/16",
                "true",
                "Never",
                "Never",
                "false",
                "false",
                "all()",
                "Automatic"
            ]
        );
    }

    #[test]
    fn columns_can_be_chosen_and_namespaces_shown() {
        let policy = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"order": 7, "selector": "app == 'web'"},
        });
        let custom = Width::Custom(vec!["name".to_owned(), "ORDER".to_owned()]);
        let drawn = draw("NetworkPolicy", &[policy], &custom, true).unwrap();
        assert_eq!(drawn, "NAMESPACE   NAME   ORDER\nshop        web    7");
        let unknown = Width::Custom(vec!["AGE".to_owned()]);
        let error = draw("Tier", &[], &unknown, false).unwrap_err();
        assert_eq!(error, "Tier has no column `AGE`: use some of NAME,ORDER");
    }
}
