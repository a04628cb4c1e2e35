//! In which form an answer is wanted and a body was sent (RFC 9110 §12.5.1), as Kubernetes reads it.

use crate::status::{Reason, Status};

/// How an object is written down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
}

/// How a body is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyFormat {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What is wanted instead of the object itself: the parameter `as` of meta.k8s.io.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum View {
    /// The object, or the list of them.
    #[default]
    Object,
    /// `Table`: rows and columns for people.
    Table,
    /// `PartialObjectMetadata`: metadata only.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accepted {
    /// How it is written down.
    pub(crate) format: Format,
    /// What is shown.
    pub(crate) view: View,
}

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// One range of an `Accept` header, or the value of `Content-Type`.
#[derive(Debug)]
struct Media<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim(), value.trim().trim_matches('"')))
        });
        Self { kind, parameters: parameters.collect() }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let known = self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, value)| *value)
    }

    fn quality(&self) -> f32 {
        self.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
    }

    fn format(&self) -> Option<Format> {
        match self.kind.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Some(Format::Json),
            "application/yaml" => Some(Format::Yaml),
            _ => None,
        }
    }

    fn view(&self) -> Option<View> {
        let view = match self.parameter("as") {
            None => return Some(View::Object),
            Some("Table") => View::Table,
            Some("PartialObjectMetadata") => View::Metadata,
            Some("PartialObjectMetadataList") => View::MetadataList,
            Some(_) => return None,
        };
        let is_known = self.parameter("g") == Some("meta.k8s.io")
            && matches!(self.parameter("v"), Some("v1" | "v1beta1"));
        is_known.then_some(view)
    }
}

/// Returns the ranges of an `Accept` header, what is liked best first.
fn ranges(header: &str) -> Vec<Media<'_>> {
    let mut ranges: Vec<Media<'_>> = header.split(',').map(Media::parse).collect();
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    ranges
}

/// Chooses the form of an answer; JSON if the client does not say.
///
/// # Errors
///
/// 406 if nothing that the client takes is written here.
pub(crate) fn accept(header: Option<&str>) -> Result<Accepted, Status> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
        return Ok(Accepted::default());
    };
    let ranges = ranges(header);
    let chosen = ranges.iter().find_map(|range| {
        let accepted = Accepted { format: range.format()?, view: range.view()? };
        Some(accepted).filter(|_| range.quality() > 0.0)
    });
    chosen.ok_or_else(|| {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, \
                       application/yaml, application/json;stream=watch";
        generic(406, Reason::NotAcceptable, message)
    })
}

/// Returns whether the client takes aggregated discovery before the older form.
pub(crate) fn wants_aggregated(header: Option<&str>) -> bool {
    let ranges = ranges(header.unwrap_or_default());
    let is_aggregated = |range: &Media<'_>| {
        range.parameter("as") == Some("APIGroupDiscoveryList")
            && range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.parameter("v") == Some("v2")
            && range.format() == Some(Format::Json)
    };
    let first = ranges.iter().find(|range| {
        is_aggregated(range) || (range.format().is_some() && range.parameter("as").is_none())
    });
    first.is_some_and(is_aggregated)
}

/// Returns how a body is to be read; JSON if the client does not say.
///
/// # Errors
///
/// 415 for anything else.
pub(crate) fn body_format(content_type: Option<&str>) -> Result<BodyFormat, Status> {
    match Media::parse(content_type.unwrap_or_default()).kind.to_ascii_lowercase().as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
        _ => Err(Status::new(
            415,
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Returns how a patch is to be read.
///
/// # Errors
///
/// 415 for anything but the four types.
pub(crate) fn patch_type(content_type: Option<&str>) -> Result<PatchType, Status> {
    match Media::parse(content_type.unwrap_or_default()).kind {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(generic(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
    }
}

/// Returns a refusal before any resource was found, whose details are empty.
pub(crate) fn generic(code: u16, reason: Reason, message: &str) -> Status {
    let details = Some(serde_json::json!({}));
    Status { code, reason, message: message.to_owned(), details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_the_client_likes_best() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let cases = [
            ("", Format::Json, View::Object),
            ("*/*", Format::Json, View::Object),
            ("application/yaml", Format::Yaml, View::Object),
            ("application/yaml;q=0.5, application/json", Format::Json, View::Object),
            (table, Format::Json, View::Table),
            (&format!("{table},application/json"), Format::Json, View::Table),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
                Format::Json,
                View::Object,
            ),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Format::Json,
                View::Metadata,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Format::Json,
                View::MetadataList,
            ),
            ("application/vnd.kubernetes.protobuf,application/json", Format::Json, View::Object),
            ("application/json;stream=watch", Format::Json, View::Object),
        ];
        for (header, format, view) in cases {
            assert_eq!(accept(Some(header)), Ok(Accepted { format, view }), "{header}");
        }
        assert_eq!(accept(None), Ok(Accepted::default()));
        for header in ["text/html", "application/vnd.kubernetes.protobuf", "application/json;q=0"] {
            assert_eq!(accept(Some(header)).unwrap_err().code, 406, "{header}");
        }
    }

    #[test]
    fn tells_aggregated_discovery() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert!(wants_aggregated(Some(&format!("{new},{older},application/json"))));
        for header in ["application/json", older, "*/*", "", "application/json,text/plain"] {
            assert!(!wants_aggregated(Some(header)), "{header}");
        }
    }

    #[test]
    fn reads_bodies_and_patches_by_their_type() {
        assert_eq!(body_format(None), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("application/json; charset=utf-8")), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("application/yaml")), Ok(BodyFormat::Yaml));
        assert_eq!(body_format(Some("text/plain")).unwrap_err().code, 415);
        assert_eq!(patch_type(Some("application/merge-patch+json")), Ok(PatchType::Merge));
        assert_eq!(patch_type(Some("application/json")).unwrap_err().code, 415);
        assert_eq!(patch_type(None).unwrap_err().code, 415);
    }

    proptest::proptest! {
        #[test]
        fn survives_any_header(header in "\\PC*") {
            let _ = (accept(Some(&header)), body_format(Some(&header)), wants_aggregated(Some(&header)));
        }
    }
}
