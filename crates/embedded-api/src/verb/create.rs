//! Create: what a new object is given, and what it must be.

use serde_json::json;

use super::rules;
use super::{Context, meta};
use crate::Object;
use crate::resource::Resource;
use crate::status::{Reason, Status};

/// The letters of generated names: no vowels, nothing that looks like another (apimachinery's `rand`).
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// `generateName` is cut so that the suffix still fits into a label.
const PREFIX_LIMIT: usize = 58;

/// Returns five letters for `generateName`, from as many random bytes.
#[must_use]
pub(crate) fn suffix(random: [u8; 5]) -> String {
    let letter = |byte: u8| {
        let at = usize::from(byte).checked_rem(LETTERS.len()).unwrap_or_default();
        LETTERS.get(at).map_or('x', |letter| char::from(*letter))
    };
    random.into_iter().map(letter).collect()
}

/// Gives the object a name if it asks for a generated one; returns whether it did.
pub(crate) fn generate_name(object: &mut Object, random: [u8; 5]) -> bool {
    let Some(prefix) = object.meta("generateName").filter(|_| object.name().is_none()) else {
        return false;
    };
    let end = prefix.char_indices().nth(PREFIX_LIMIT).map_or(prefix.len(), |(at, _)| at);
    let prefix = prefix.get(..end).unwrap_or_default();
    let name = format!("{prefix}{}", suffix(random));
    object.set_meta("name", name);
    true
}

/// Fills in what a decoded object is given at its creation, and judges it.
///
/// # Errors
///
/// 422 with what is wrong, 500 if it names a revision.
pub(crate) fn create(
    resource: &Resource,
    mut object: Object,
    context: &Context,
) -> Result<Object, Status> {
    if object.resource_version().is_some() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Status::new(500, Reason::Unknown, message));
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        object.metadata.remove(field);
    }
    object.set_meta("uid", context.uid.clone());
    object.set_meta("creationTimestamp", context.now.clone());
    rules::prepare_create(resource, &mut object);
    if rules::has_generation(resource) {
        object.set_meta("generation", json!(1));
    }
    let mut causes = meta::validate(&object, rules::name_rule(resource));
    causes.extend(rules::validate(resource, &object));
    if causes.is_empty() {
        return Ok(object);
    }
    let name = object.name().unwrap_or_default();
    Err(Status::invalid((&resource.kind, &resource.group), name, &causes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generates_names_with_the_alphabet_of_kubernetes() {
        let mut object = Object::from_value(json!({"metadata": {"generateName": "gen-"}})).unwrap();
        assert!(generate_name(&mut object, [0, 26, 27, 255, 13]));
        assert_eq!(object.name(), Some("gen-b9bqr"));
        assert!(!generate_name(&mut object, [0; 5]), "a name stays");
    }

    #[test]
    fn cuts_a_long_prefix() {
        let prefix = "a".repeat(100);
        let mut object = Object::from_value(json!({"metadata": {"generateName": prefix}})).unwrap();
        generate_name(&mut object, [0; 5]);
        assert_eq!(object.name().unwrap().len(), 63);
    }
}
