//! The order of a merged list: what the patch says, among what the server had.

use serde_json::Value;

/// Sorts a merged list: items of `wanted` in that order, the others where the server had them.
///
/// `key` is the merge key of a list of objects, `None` for scalars.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut patched, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| position(wanted, item, key).is_some());
    patched.sort_by_key(|item| position(wanted, item, key));
    others.sort_by_key(|item| position(server, item, key));
    let mut arranged = Vec::with_capacity(patched.len().saturating_add(others.len()));
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(other), Some(item)) = (others.peek(), patched.peek()) {
        let places = (position(server, other, key), position(server, item, key));
        let is_first = matches!(places, (Some(other), Some(item)) if other < item);
        arranged.extend(if is_first { others.next() } else { patched.next() });
    }
    arranged.extend(patched);
    arranged.extend(others);
    arranged
}

/// Returns where a list has an item that counts as the same.
pub(super) fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).cloned(),
        None => Some(item.clone()),
    };
    let wanted = identity(item);
    list.iter().position(|candidate| identity(candidate) == wanted)
}
