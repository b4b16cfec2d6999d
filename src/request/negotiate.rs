//! Content negotiation: which representation of the answer the client takes, from its `Accept` header.

use std::cmp::Reverse;

use crate::codec::Media;
use crate::status::{ApiError, Details};

/// What is made of the object before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    #[default]
    Object,
    /// `PartialObjectMetadata` of one object.
    Partial,
    PartialList,
    Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub shape: Shape,
    /// Of `meta.k8s.io`, for tables and partial metadata: `v1` or `v1beta1`.
    pub meta_version: &'static str,
    /// By the media type's own parameter.
    pub pretty: bool,
}

impl Default for Accept {
    fn default() -> Accept {
        Accept { media: Media::Json, shape: Shape::Object, meta_version: "v1", pretty: false }
    }
}

/// What an endpoint offers beside plain objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Only the document itself (discovery).
    Plain,
    /// One object of a resource, also as partial metadata or a table.
    Object,
    /// The same, and it may be a stream of watch events.
    Collection,
}

const SERVED: [(&str, Media); 3] = [
    ("application/json", Media::Json),
    ("application/yaml", Media::Yaml),
    ("application/vnd.kubernetes.protobuf", Media::Protobuf),
];

struct Clause<'h> {
    media: &'h str,
    params: Vec<(&'h str, &'h str)>,
    /// Thousandths.
    quality: u32,
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().filter(|media| !media.is_empty())?;
            let mut clause = Clause { media, params: Vec::new(), quality: 1000 };
            for piece in pieces {
                let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
                let (name, value) = (name.trim(), value.trim().trim_matches('"'));
                if name == "q" {
                    clause.quality = value.parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
                } else {
                    clause.params.push((name, value));
                }
            }
            Some(clause)
        })
        .collect();
    clauses.sort_by_key(|clause| Reverse(clause.quality));
    clauses
}

impl Accept {
    pub fn negotiate(header: Option<&str>, offer: Offer) -> Result<Accept, ApiError> {
        let header = header.unwrap_or_default();
        if header.is_empty() {
            return Ok(Accept::default());
        }
        let clauses = clauses(header);
        let known = |media: &str| media == "*/*" || SERVED.iter().any(|(served, _)| *served == media);
        if !clauses.iter().any(|clause| known(clause.media)) {
            return Err(not_acceptable(offer));
        }
        for clause in &clauses {
            let media = match clause.media {
                "*/*" | "application/*" => Some(Media::Json),
                media => SERVED.iter().find(|(served, _)| *served == media).map(|(_, media)| *media),
            };
            if let Some(accept) = media.and_then(|media| with_params(media, &clause.params, offer)) {
                return Ok(accept);
            }
        }
        Err(unsupported())
    }
}

/// The first of the offered media types that the client takes, for endpoints that serve none of Kubernetes' own.
pub fn first_of<T: Copy>(header: Option<&str>, offered: &[(&str, T)]) -> Option<T> {
    let header = header.filter(|header| !header.is_empty()).unwrap_or("*/*");
    let takes = |wanted: &str, offered: &str| match (wanted.split_once('/'), offered.split_once('/')) {
        (Some((kind, "*")), Some((offered, _))) => kind == "*" || kind == offered,
        _ => wanted == offered,
    };
    clauses(header)
        .iter()
        .find_map(|clause| offered.iter().find(|(offered, _)| takes(clause.media, offered)).map(|(_, what)| *what))
}

/// The error where a media type is known but not with these parameters.
pub fn unsupported() -> ApiError {
    let served: Vec<&str> = SERVED.iter().map(|(name, _)| *name).collect();
    let message = format!("only the following media types are accepted: {}", served.join(", "));
    ApiError::new(406, "NotAcceptable", message)
}

fn not_acceptable(offer: Offer) -> ApiError {
    let mut served: Vec<&str> = SERVED.iter().map(|(name, _)| *name).collect();
    if offer == Offer::Collection {
        served.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", served.join(", "));
    ApiError::new(406, "NotAcceptable", message).with_details(Details::default())
}

/// None where the parameters ask for something that isn't offered.
fn with_params(media: Media, params: &[(&str, &str)], offer: Offer) -> Option<Accept> {
    let mut accept = Accept { media, ..Accept::default() };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (name, value) in params {
        match *name {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            "pretty" => accept.pretty = *value == "1",
            "stream" if !value.is_empty() && *value != "watch" => return None,
            _ => {}
        }
    }
    if kind.is_empty() && group.is_empty() && version.is_empty() {
        return Some(accept);
    }
    if group != "meta.k8s.io" || offer == Offer::Plain {
        return None;
    }
    accept.meta_version = match version {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    accept.shape = match kind {
        "Table" if media != Media::Protobuf => Shape::Table,
        "PartialObjectMetadata" => Shape::Partial,
        "PartialObjectMetadataList" => Shape::PartialList,
        _ => return None,
    };
    Some(accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(header: &str) -> Result<Accept, String> {
        Accept::negotiate(Some(header), Offer::Object).map_err(|e| e.message)
    }

    #[test]
    fn documents_come_in_the_media_type_that_is_wanted_most() {
        let first = |header| first_of(header, &[("application/json", 1), ("application/proto", 2)]);
        assert_eq!((first(None), first(Some("*/*")), first(Some("application/*"))), (Some(1), Some(1), Some(1)));
        assert_eq!((first(Some("application/proto, */*;q=0.1")), first(Some("text/html"))), (Some(2), None));
    }

    #[test]
    fn the_best_of_what_is_offered_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(accept(table).map(|a| a.shape), Ok(Shape::Table));
        assert_eq!(accept(&format!("{table},application/json")).map(|a| a.shape), Ok(Shape::Table));
        assert_eq!(accept("application/json;as=Table;v=v9;g=meta.k8s.io, */*").map(|a| a.shape), Ok(Shape::Object));
        assert_eq!(accept("application/json;q=0.5,application/yaml").map(|a| a.media), Ok(Media::Yaml));
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json").map(|a| a.shape),
            Ok(Shape::Object)
        );
        assert!(accept("text/html").is_err_and(|e| e.starts_with("406: Not Acceptable")));
        assert!(accept("application/json;as=Nope;v=v1;g=meta.k8s.io").is_err_and(|e| e.starts_with("only the")));
    }
}
