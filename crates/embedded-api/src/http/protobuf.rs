//! Bodies in `application/vnd.kubernetes.protobuf`, which Go's typed clients send (kubectl create).
//!
//! They are turned into JSON by tables of fields, as `generated.proto` of k8s.io/api gives them.
//! Answers are JSON: every such client takes that, too.

mod messages;

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use self::messages::{Field, fields_of};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// No message is nested deeper; a body that says otherwise is not one of ours.
const DEPTH: usize = 16;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It breaks off, or is something else.
    #[error("the body is no Kubernetes protobuf: send the object as application/json")]
    Malformed,
    /// Its kind has no table.
    #[error("{0} cannot be read from protobuf here: send it as application/json")]
    Kind(String),
}

/// Decodes a body.
///
/// # Errors
///
/// [`Error`], which names the remedy.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Error::Malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = match (api_version.as_str(), kind.as_str()) {
        ("events.k8s.io/v1", "Event") => "events.Event",
        (_, kind) => kind,
    };
    if messages::KINDS.binary_search(&name).is_err() {
        return Err(Error::Kind(format!("{api_version} {kind}")));
    }
    let mut object = message(name, raw, 0)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// What stands in a field, before its table says what that is.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let field = self.field();
            if field.is_none() {
                self.0 = &[];
            }
            field.ok_or(Error::Malformed)
        })
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => Wire::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn string(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Malformed)
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Error> {
    if depth > DEPTH {
        return Err(Error::Malformed);
    }
    let fields = fields_of(name);
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let known = fields.iter().find(|field| u64::from(field.0) == number);
        let Some(Field(_, key, kind)) = known else { continue };
        if let Some(element) = kind.strip_prefix('*') {
            let list = object.entry(*key).or_insert_with(|| json!([]));
            let value = value(element, &wire, depth)?.unwrap_or_else(|| json!(""));
            list.as_array_mut().ok_or(Error::Malformed)?.push(value);
        } else if let ("m" | "M", Wire::Bytes(entry)) = (*kind, &wire) {
            let (name, value) = map_entry(entry, *kind == "M")?;
            let map = object.entry(*key).or_insert_with(|| json!({}));
            map.as_object_mut().ok_or(Error::Malformed)?.insert(name, value);
        } else if let Some(value) = value(kind, &wire, depth)? {
            object.insert((*key).to_owned(), value);
        }
    }
    Ok(object)
}

/// Reads a value; `None` for one that JSON leaves out since it is empty.
fn value(kind: &str, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, Error> {
    Ok(match (kind, wire) {
        ("s", Wire::Bytes([])) | ("i" | "b", Wire::Number(0)) => None,
        ("s" | "S", Wire::Bytes(text)) => Some(json!(string(text)?)),
        ("i" | "I", Wire::Number(number)) => Some(json!(number.cast_signed())),
        ("b" | "B", Wire::Number(number)) => Some(json!(*number != 0)),
        ("T" | "U", Wire::Bytes(time)) => timestamp(time, kind == "U")?,
        ("X", Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (name, Wire::Bytes(bytes)) => {
            Some(Value::Object(message(name, bytes, depth.saturating_add(1))?))
        }
        _ => return Err(Error::Malformed),
    })
}

fn map_entry(bytes: &[u8], is_binary: bool) -> Result<(String, Value), Error> {
    let (mut key, mut value) = (String::new(), json!(""));
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = string(text)?,
            (2, Wire::Bytes(bytes)) if is_binary => value = json!(BASE64.encode(bytes)),
            (2, Wire::Bytes(text)) => value = json!(string(text)?),
            _ => return Err(Error::Malformed),
        }
    }
    Ok((key, value))
}

/// `Time` and `MicroTime`: no field at all is no time.
fn timestamp(bytes: &[u8], has_micros: bool) -> Result<Option<Value>, Error> {
    let (mut seconds, mut nanos) = (None, 0_i64);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(number)) => seconds = Some(number.cast_signed()),
            (2, Wire::Number(number)) => nanos = number.cast_signed(),
            _ => return Err(Error::Malformed),
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanos = i32::try_from(nanos).map_err(|_| Error::Malformed)?;
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Malformed)?;
    let text = if has_micros { format!("{time:.6}") } else { format!("{time:.0}") };
    Ok(Some(json!(text)))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(value)) => text = string(value)?,
            _ => return Err(Error::Malformed),
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a field with a length.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn reads_what_kubectl_create_sends() {
        // ObjectMeta with empty texts, as Go writes them, and no creationTimestamp.
        let meta = [field(1, b"x"), field(2, b""), field(3, b"ns"), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &meta), field(2, &entry)].concat();
        assert_eq!(
            decode(&body("v1", "ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "ns"}, "data": {"k": "v"}})
        );
        let secret = [field(1, &meta), field(2, &entry), field(3, b"Opaque")].concat();
        let secret = decode(&body("v1", "Secret", &secret)).unwrap();
        assert_eq!((&secret["data"]["k"], &secret["type"]), (&json!("dg=="), &json!("Opaque")));
    }

    #[test]
    fn keeps_empty_texts_in_lists() {
        let rule = [field(1, b"get"), field(2, b""), field(3, b"pods")].concat();
        let decoded =
            decode(&body("rbac.authorization.k8s.io/v1", "Role", &field(2, &rule))).unwrap();
        let expected = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(decoded["rules"], json!([expected]));
    }

    #[test]
    fn reads_numbers_and_times() {
        let spec = [field(1, b"api"), vec![4 << 3, 0x90, 0x1c]].concat();
        let request = decode(&body("authentication.k8s.io/v1", "TokenRequest", &field(2, &spec)));
        let spec = json!({"audiences": ["api"], "expirationSeconds": 3600});
        assert_eq!(request.unwrap()["spec"], spec);
        let spec = [field(1, b"me"), field(3, &[8, 0x80, 0xac, 0xc0, 0xc5, 0x06])].concat();
        let lease = decode(&body("coordination.k8s.io/v1", "Lease", &field(2, &spec))).unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "me");
        assert_eq!(lease["spec"]["acquireTime"].as_str().unwrap().len(), 27);
    }

    #[test]
    fn names_the_kinds_that_it_cannot_read() {
        let refused = decode(&body("apps/v1", "Deployment", b"")).unwrap_err().to_string();
        assert!(refused.starts_with("apps/v1 Deployment cannot be read"), "{refused}");
    }

    #[test]
    fn tables_name_only_known_messages() {
        assert!(messages::KINDS.is_sorted());
        for name in messages::KINDS {
            assert!(!fields_of(name).is_empty(), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn survives_any_bytes(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            for kind in messages::KINDS {
                let _ = decode(&body("v1", kind, &raw));
            }
            let _ = decode(&raw);
        }
    }
}
