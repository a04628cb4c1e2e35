//! The fields of the messages, by `generated.proto` of k8s.io/api and apimachinery 0.34.
//!
//! A type is `s` (text, left out if empty), `S` (text), `i`/`I` (integer), `b`/`B` (truth),
//! `T` (`Time`), `U` (`MicroTime`), `X` (`IntOrString`), `m`/`M` (map of texts/bytes), or the name of
//! a message; `*` in front makes it a list.

/// Number, name in JSON, type.
pub(super) struct Field(pub(super) u8, pub(super) &'static str, pub(super) &'static str);

/// The kinds that a body may have, in order.
pub(super) const KINDS: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "DeleteOptions",
    "Event",
    "Lease",
    "Namespace",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "TokenRequest",
    "events.Event",
];

/// Returns the fields of a message; none for one that is not known.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn fields_of(message: &str) -> &'static [Field] {
    match message {
        "ObjectMeta" => &[
            Field(1, "name", "s"),
            Field(2, "generateName", "s"),
            Field(3, "namespace", "s"),
            Field(5, "uid", "s"),
            Field(6, "resourceVersion", "s"),
            Field(7, "generation", "i"),
            Field(8, "creationTimestamp", "T"),
            Field(9, "deletionTimestamp", "T"),
            Field(10, "deletionGracePeriodSeconds", "I"),
            Field(11, "labels", "m"),
            Field(12, "annotations", "m"),
            Field(13, "ownerReferences", "*OwnerReference"),
            Field(14, "finalizers", "*S"),
        ],
        "OwnerReference" => &[
            Field(1, "kind", "s"),
            Field(3, "name", "s"),
            Field(4, "uid", "s"),
            Field(5, "apiVersion", "s"),
            Field(6, "controller", "B"),
            Field(7, "blockOwnerDeletion", "B"),
        ],
        "ObjectReference" => &[
            Field(1, "kind", "s"),
            Field(2, "namespace", "s"),
            Field(3, "name", "s"),
            Field(4, "uid", "s"),
            Field(5, "apiVersion", "s"),
            Field(6, "resourceVersion", "s"),
            Field(7, "fieldPath", "s"),
        ],
        "LocalObjectReference" => &[Field(1, "name", "s")],
        "LabelSelector" => {
            &[Field(1, "matchLabels", "m"), Field(2, "matchExpressions", "*Requirement")]
        }
        "Requirement" => {
            &[Field(1, "key", "s"), Field(2, "operator", "s"), Field(3, "values", "*S")]
        }
        "Namespace" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "spec", "NamespaceSpec"),
            Field(3, "status", "NamespaceStatus"),
        ],
        "NamespaceSpec" => &[Field(1, "finalizers", "*S")],
        "NamespaceStatus" => &[Field(1, "phase", "s")],
        "ConfigMap" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "data", "m"),
            Field(3, "binaryData", "M"),
            Field(4, "immutable", "B"),
        ],
        "Secret" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "data", "M"),
            Field(3, "type", "s"),
            Field(4, "stringData", "m"),
            Field(5, "immutable", "B"),
        ],
        "ServiceAccount" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "secrets", "*ObjectReference"),
            Field(3, "imagePullSecrets", "*LocalObjectReference"),
            Field(4, "automountServiceAccountToken", "B"),
        ],
        "TokenRequest" => {
            &[Field(1, "metadata", "ObjectMeta"), Field(2, "spec", "TokenRequestSpec")]
        }
        "TokenRequestSpec" => &[
            Field(1, "audiences", "*S"),
            Field(3, "boundObjectRef", "BoundObjectReference"),
            Field(4, "expirationSeconds", "I"),
        ],
        "BoundObjectReference" => &[
            Field(1, "kind", "s"),
            Field(2, "apiVersion", "s"),
            Field(3, "name", "s"),
            Field(4, "uid", "s"),
        ],
        "Service" => &[Field(1, "metadata", "ObjectMeta"), Field(2, "spec", "ServiceSpec")],
        "ServiceSpec" => &[
            Field(1, "ports", "*ServicePort"),
            Field(2, "selector", "m"),
            Field(3, "clusterIP", "s"),
            Field(4, "type", "s"),
            Field(5, "externalIPs", "*S"),
            Field(7, "sessionAffinity", "s"),
            Field(8, "loadBalancerIP", "s"),
            Field(9, "loadBalancerSourceRanges", "*S"),
            Field(10, "externalName", "s"),
            Field(11, "externalTrafficPolicy", "s"),
            Field(12, "healthCheckNodePort", "i"),
            Field(13, "publishNotReadyAddresses", "b"),
            Field(17, "ipFamilyPolicy", "S"),
            Field(18, "clusterIPs", "*S"),
            Field(19, "ipFamilies", "*S"),
            Field(20, "allocateLoadBalancerNodePorts", "B"),
            Field(21, "loadBalancerClass", "S"),
            Field(22, "internalTrafficPolicy", "S"),
            Field(23, "trafficDistribution", "S"),
        ],
        "ServicePort" => &[
            Field(1, "name", "s"),
            Field(2, "protocol", "s"),
            Field(3, "port", "i"),
            Field(4, "targetPort", "X"),
            Field(5, "nodePort", "i"),
            Field(6, "appProtocol", "S"),
        ],
        "Role" => &[Field(1, "metadata", "ObjectMeta"), Field(2, "rules", "*PolicyRule")],
        "ClusterRole" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "rules", "*PolicyRule"),
            Field(3, "aggregationRule", "AggregationRule"),
        ],
        "AggregationRule" => &[Field(1, "clusterRoleSelectors", "*LabelSelector")],
        "PolicyRule" => &[
            Field(1, "verbs", "*S"),
            Field(2, "apiGroups", "*S"),
            Field(3, "resources", "*S"),
            Field(4, "resourceNames", "*S"),
            Field(5, "nonResourceURLs", "*S"),
        ],
        "RoleBinding" | "ClusterRoleBinding" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "subjects", "*Subject"),
            Field(3, "roleRef", "RoleRef"),
        ],
        "Subject" => &[
            Field(1, "kind", "s"),
            Field(2, "apiGroup", "s"),
            Field(3, "name", "s"),
            Field(4, "namespace", "s"),
        ],
        "RoleRef" => &[Field(1, "apiGroup", "s"), Field(2, "kind", "s"), Field(3, "name", "s")],
        "PodDisruptionBudget" => {
            &[Field(1, "metadata", "ObjectMeta"), Field(2, "spec", "PodDisruptionBudgetSpec")]
        }
        "PodDisruptionBudgetSpec" => &[
            Field(1, "minAvailable", "X"),
            Field(2, "selector", "LabelSelector"),
            Field(3, "maxUnavailable", "X"),
            Field(4, "unhealthyPodEvictionPolicy", "S"),
        ],
        "Lease" => &[Field(1, "metadata", "ObjectMeta"), Field(2, "spec", "LeaseSpec")],
        "LeaseSpec" => &[
            Field(1, "holderIdentity", "S"),
            Field(2, "leaseDurationSeconds", "I"),
            Field(3, "acquireTime", "U"),
            Field(4, "renewTime", "U"),
            Field(5, "leaseTransitions", "I"),
            Field(6, "strategy", "S"),
            Field(7, "preferredHolder", "S"),
        ],
        "Event" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "involvedObject", "ObjectReference"),
            Field(3, "reason", "s"),
            Field(4, "message", "s"),
            Field(5, "source", "EventSource"),
            Field(6, "firstTimestamp", "T"),
            Field(7, "lastTimestamp", "T"),
            Field(8, "count", "i"),
            Field(9, "type", "s"),
            Field(10, "eventTime", "U"),
            Field(11, "series", "EventSeries"),
            Field(12, "action", "s"),
            Field(13, "related", "ObjectReference"),
            Field(14, "reportingComponent", "s"),
            Field(15, "reportingInstance", "s"),
        ],
        "EventSource" => &[Field(1, "component", "s"), Field(2, "host", "s")],
        "EventSeries" => &[Field(1, "count", "i"), Field(2, "lastObservedTime", "U")],
        "events.Event" => &[
            Field(1, "metadata", "ObjectMeta"),
            Field(2, "eventTime", "U"),
            Field(3, "series", "EventSeries"),
            Field(4, "reportingController", "s"),
            Field(5, "reportingInstance", "s"),
            Field(6, "action", "s"),
            Field(7, "reason", "s"),
            Field(8, "regarding", "ObjectReference"),
            Field(9, "related", "ObjectReference"),
            Field(10, "note", "s"),
            Field(11, "type", "s"),
            Field(12, "deprecatedSource", "EventSource"),
            Field(13, "deprecatedFirstTimestamp", "T"),
            Field(14, "deprecatedLastTimestamp", "T"),
            Field(15, "deprecatedCount", "i"),
        ],
        "DeleteOptions" => &[
            Field(1, "gracePeriodSeconds", "I"),
            Field(2, "preconditions", "Preconditions"),
            Field(3, "orphanDependents", "B"),
            Field(4, "propagationPolicy", "S"),
            Field(5, "dryRun", "*S"),
        ],
        "Preconditions" => &[Field(1, "uid", "S"), Field(2, "resourceVersion", "S")],
        _ => &[],
    }
}
