//! Label and field selectors of list, watch and deletecollection, with Kubernetes' grammar and words.

mod fields;
mod labels;
pub mod name;
#[cfg(test)]
mod tests;

pub use fields::{Fields, Selectable};
pub use labels::Labels;
