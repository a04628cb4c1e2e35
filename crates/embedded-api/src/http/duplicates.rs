//! Fields that are in a JSON object twice: strict clients are refused, others are warned.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most that are told.
const MOST: usize = 20;

/// Returns `duplicate field "PATH"` for each field that is repeated; of what is no JSON, nothing.
pub(crate) fn duplicates(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let finder = Finder { path: String::new(), found: &mut found };
    if json.deserialize_any(finder).is_err() {
        return Vec::new();
    }
    found
}

/// Walks a value and notes the paths of repeated fields.
struct Finder<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{name}", self.path);
            if !names.insert(name) && self.found.len() < MOST {
                self.found.push(format!("duplicate field \"{path}\""));
            }
            map.next_value_seed(Finder { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut at = 0_usize;
        loop {
            let path = format!("{}[{at}]", self.path);
            if items.next_element_seed(Finder { path, found: self.found })?.is_none() {
                return Ok(());
            }
            at = at.saturating_add(1);
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_that_are_repeated() {
        let found = |text: &str| duplicates(text.as_bytes());
        assert_eq!(
            found(r#"{"a":{"b":1,"b":2},"c":[{"d":1},{"d":1,"d":null}]}"#),
            [r#"duplicate field "a.b""#, r#"duplicate field "c[1].d""#,]
        );
        assert!(found(r#"{"a":1,"b":{"a":1}}"#).is_empty());
        assert!(found(r#"{"a":1,"a":"#).is_empty(), "that is refused elsewhere");
    }

    proptest::proptest! {
        #[test]
        fn survives_any_body(body in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = duplicates(&body);
        }
    }
}
