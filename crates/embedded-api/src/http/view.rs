//! The form in which objects, lists and events are shown: whole, as rows, or as metadata.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::media::{Accepted, Format, View, generic};
use super::table::{Include, Table, partial};
use crate::resource::Resource;
use crate::service::{List, StreamEvent};
use crate::status::{Reason, Status};
use crate::verb::watch::Kind;

/// Shows one object.
///
/// # Errors
///
/// 406 if a list is wanted; 500 if what is stored is damaged.
pub(crate) fn object(
    accepted: Accepted,
    resource: &Resource,
    include: Include,
    (code, json): (StatusCode, &[u8]),
) -> Result<Answer, Status> {
    if accepted == Accepted::default() {
        return Ok(answer::json(code, json.to_vec()));
    }
    let object = parse(json)?;
    let shown = match accepted.view {
        // Deletions are answered with a status, which is shown as it is.
        _ if object.get("kind") == Some(&json!("Status")) => object,
        View::Object => object,
        View::Metadata => partial(&object),
        View::MetadataList => {
            let message = format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                resource.kind
            );
            return Err(Status::new(406, Reason::NotAcceptable, message));
        }
        View::Table => {
            let version = object.pointer("/metadata/resourceVersion");
            let metadata = version.map_or_else(|| json!({}), |it| json!({"resourceVersion": it}));
            let table = Table::of(resource);
            let row = table.row(&object, include, Timestamp::now());
            table.body(metadata, vec![row])
        }
    };
    Ok(answer::value(code, accepted.format, &shown))
}

/// Shows a list.
///
/// # Errors
///
/// 406 if one object is wanted; 500 if what is stored is damaged.
pub(crate) fn list(
    accepted: Accepted,
    resource: &Resource,
    include: Include,
    list: &List,
) -> Result<Answer, Status> {
    if accepted == Accepted::default() {
        return Ok(answer::json(StatusCode::OK, list.to_json()));
    }
    let objects = || list.items.iter().map(|json| parse(json));
    let shown = match accepted.view {
        View::Object => parse(&list.to_json())?,
        View::Metadata => {
            let message = "you requested PartialObjectMetadata, but the requested object is a list";
            return Err(Status::new(406, Reason::NotAcceptable, message));
        }
        View::MetadataList => {
            let items = objects().map(|object| object.map(|object| partial(&object)));
            let items = items.collect::<Result<Vec<Value>, _>>()?;
            json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata(list),
                "items": items,
            })
        }
        View::Table => {
            let (table, now) = (Table::of(resource), Timestamp::now());
            let rows = objects().map(|object| Ok(table.row(&object?, include, now)));
            table.body(metadata(list), rows.collect::<Result<_, Status>>()?)
        }
    };
    Ok(answer::value(StatusCode::OK, accepted.format, &shown))
}

fn metadata(list: &List) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), json!(list.resource_version));
    if let Some(token) = list.continue_token.as_ref().filter(|token| !token.is_empty()) {
        metadata.insert("continue".to_owned(), json!(token));
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".to_owned(), json!(remaining));
    }
    Value::Object(metadata)
}

/// Shows the events of one watch.
pub(crate) struct Events {
    view: View,
    include: Include,
    table: Option<Table>,
    has_head: bool,
}

impl Events {
    /// Returns how a watch of a kind is shown.
    ///
    /// # Errors
    ///
    /// 406 for YAML, which has no frames.
    pub(crate) fn new(
        accepted: Accepted,
        resource: &Resource,
        include: Include,
    ) -> Result<Self, Status> {
        if accepted.format == Format::Yaml {
            let message = "406: Not Acceptable\n\nAvailable representations: application/json";
            return Err(generic(406, Reason::NotAcceptable, message));
        }
        let table = (accepted.view == View::Table).then(|| Table::of(resource));
        Ok(Self { view: accepted.view, include, table, has_head: false })
    }

    /// Returns the line of an event.
    pub(crate) fn line(&mut self, event: &StreamEvent) -> Vec<u8> {
        if self.view == View::Object || event.kind == Kind::Error {
            return event.to_json();
        }
        let Ok(object) = parse(&event.json) else { return event.to_json() };
        let shown = match &self.table {
            None => partial(&object),
            Some(table) => {
                let version = object.pointer("/metadata/resourceVersion").cloned();
                let metadata = json!({"resourceVersion": version.unwrap_or_default()});
                let is_bookmark = event.kind == Kind::Bookmark;
                let row = || table.row(&object, self.include, Timestamp::now());
                let rows = (!is_bookmark).then(row).into_iter().collect();
                let mut body = table.body(metadata, rows);
                // The columns are sent once.
                if std::mem::replace(&mut self.has_head, true) {
                    body.as_object_mut()
                        .map(|body| body.insert("columnDefinitions".to_owned(), Value::Null));
                }
                body
            }
        };
        let mut line = json!({"type": event.kind.as_str(), "object": shown}).to_string();
        line.push('\n');
        line.into_bytes()
    }
}

fn parse(json: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(json).map_err(Status::internal)
}
