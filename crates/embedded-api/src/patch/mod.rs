//! The three patches of Kubernetes: JSON, merge and strategic merge.

mod directive;
mod json;
mod merge;
mod order;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::verb::meta::go_kind;
use crate::{Reason, Status};

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;

/// A patch that does not fit the object; Kubernetes tells no more than this.
fn unprocessable() -> Status {
    let message = "the server rejected our request due to an error in our request";
    let status = Status::new(422, Reason::Invalid, message);
    Status { details: Some(serde_json::json!({})), ..status }
}

fn wrong_type(value: &Value, into: &str) -> Status {
    let found = go_kind(value);
    Status::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go {into}"
    ))
}
