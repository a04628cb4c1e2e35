//! Items of lists of built-in kinds: without `apiVersion` and `kind`, which the list has.
//!
//! Works on the bytes: a list of ten thousand pods is not decoded to leave out two fields.

/// Returns an object without its own `apiVersion` and `kind`.
pub(super) fn without_kind(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    out.push(b'{');
    for member in Members::of(json) {
        let is_head = [&b"\"apiVersion\":"[..], &b"\"kind\":"[..]]
            .iter()
            .any(|head| member.starts_with(head));
        if !is_head {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(member);
        }
    }
    out.push(b'}');
    out
}

/// The members of a compact JSON object, as bytes.
struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    fn of(json: &'a [u8]) -> Self {
        let inner = json.strip_prefix(b"{").and_then(|json| json.strip_suffix(b"}"));
        Self { rest: inner.unwrap_or_default() }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
        let ends = |byte: &u8| {
            if is_text {
                is_text = is_escaped || *byte != b'"';
                is_escaped = !is_escaped && *byte == b'\\';
                return false;
            }
            match byte {
                b'"' => is_text = true,
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            *byte == b',' && depth == 0
        };
        let end = self.rest.iter().position(ends).unwrap_or(self.rest.len());
        let (member, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix(b",").unwrap_or_default();
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    #[test]
    fn leaves_out_only_the_outermost_fields() {
        let json = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "action": "a,\\\"}{",
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node"}]},
        });
        let expected = json!({
            "action": "a,\\\"}{",
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node"}]},
        });
        let found = without_kind(json.to_string().as_bytes());
        assert_eq!(serde_json::from_slice::<Value>(&found).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn keeps_everything_else(members in proptest::collection::btree_map(".*", ".*", 0..8)) {
            let map: Map<String, Value> =
                members.into_iter().map(|(key, value)| (key, json!([value, {"kind": 1}]))).collect();
            let found = without_kind(Value::Object(map.clone()).to_string().as_bytes());
            let mut expected = map;
            expected.retain(|key, _| key != "kind" && key != "apiVersion");
            prop_assert_eq!(serde_json::from_slice::<Value>(&found).unwrap(), Value::Object(expected));
        }
    }
}
