//! How the fields of built-in kinds are merged: `patchStrategy` and `patchMergeKey` of k8s.io/api v0.34.

/// How a strategic merge patch changes a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strategy {
    /// Objects are merged, lists are replaced.
    Default,
    /// The field is replaced, whatever it is.
    Replace,
    /// A list of scalars is a set.
    Set,
    /// A list of objects is a map with this key.
    Map(&'static str),
}

/// A type, a field of it, the type of the field's objects (also in lists and maps), its strategy.
type Row = (&'static str, &'static str, &'static str, Strategy);

use Strategy::{Default, Map, Replace, Set};

/// Returns the type and the strategy of a field of the type `parent`.
pub(super) fn lookup(parent: &str, field: &str) -> (&'static str, Strategy) {
    let row = FIELDS.iter().find(|(of, name, ..)| *of == parent && *name == field);
    row.map_or(("", Default), |(_, _, kind, strategy)| (kind, *strategy))
}

/// Returns the type and strategy of a field of an object of `kind`.
pub(super) fn lookup_root(kind: &str, field: &str) -> (&'static str, Strategy) {
    if field == "metadata" { ("ObjectMeta", Default) } else { lookup(kind, field) }
}

const FIELDS: &[Row] = &[
    ("ObjectMeta", "finalizers", "", Set),
    ("ObjectMeta", "ownerReferences", "", Map("uid")),
    ("Namespace", "status", "NamespaceStatus", Default),
    ("NamespaceStatus", "conditions", "", Map("type")),
    ("Node", "spec", "NodeSpec", Default),
    ("Node", "status", "NodeStatus", Default),
    ("NodeSpec", "podCIDRs", "", Set),
    ("NodeStatus", "addresses", "", Map("type")),
    ("NodeStatus", "conditions", "", Map("type")),
    ("Pod", "spec", "PodSpec", Default),
    ("Pod", "status", "PodStatus", Default),
    ("PodSpec", "containers", "Container", Map("name")),
    ("PodSpec", "ephemeralContainers", "Container", Map("name")),
    ("PodSpec", "hostAliases", "", Map("ip")),
    ("PodSpec", "imagePullSecrets", "", Map("name")),
    ("PodSpec", "initContainers", "Container", Map("name")),
    ("PodSpec", "resourceClaims", "", Map("name")),
    ("PodSpec", "schedulingGates", "", Map("name")),
    ("PodSpec", "topologySpreadConstraints", "", Map("topologyKey")),
    ("PodSpec", "volumes", "Volume", Map("name")),
    ("Container", "env", "", Map("name")),
    ("Container", "ports", "", Map("containerPort")),
    ("Container", "volumeDevices", "", Map("devicePath")),
    ("Container", "volumeMounts", "", Map("mountPath")),
    ("Volume", "ephemeral", "EphemeralVolumeSource", Default),
    ("EphemeralVolumeSource", "volumeClaimTemplate", "PersistentVolumeClaimTemplate", Default),
    ("PersistentVolumeClaimTemplate", "metadata", "ObjectMeta", Default),
    ("PodStatus", "conditions", "", Map("type")),
    ("PodStatus", "hostIPs", "", Map("ip")),
    ("PodStatus", "podIPs", "", Map("ip")),
    ("PodStatus", "resourceClaimStatuses", "", Map("name")),
    ("Service", "spec", "ServiceSpec", Default),
    ("Service", "status", "ServiceStatus", Default),
    ("ServiceSpec", "ports", "", Map("port")),
    ("ServiceStatus", "conditions", "", Map("type")),
    ("ServiceAccount", "secrets", "", Map("name")),
    ("PodDisruptionBudget", "spec", "PodDisruptionBudgetSpec", Default),
    ("PodDisruptionBudget", "status", "PodDisruptionBudgetStatus", Default),
    ("PodDisruptionBudgetSpec", "selector", "", Replace),
    ("PodDisruptionBudgetStatus", "conditions", "", Map("type")),
];
