//! Maps of values, accounts and events.

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::object::Fields;

pub fn config_map(object: &Value) -> Cells {
    vec![name(object), (size(object, &["data"]) + size(object, &["binaryData"])).into(), age(object)]
}

pub fn secret(object: &Value) -> Cells {
    vec![name(object), text(object, &["type"]), size(object, &["data"]).into(), age(object)]
}

pub fn service_account(object: &Value) -> Cells {
    vec![name(object), count(object, &["secrets"]), age(object)]
}

pub fn event(object: &Value) -> Cells {
    let either = |field, other| if object.at(&[field]).is_some() { field } else { other };
    let first = since(object, &[either("firstTimestamp", "eventTime")]);
    let (last, count) = match object.at(&["series"]) {
        Some(series) => (since(series, &["lastObservedTime"]), integer(series, &["count"])),
        None => {
            let last =
                object.at(&["lastTimestamp"]).map_or_else(|| first.clone(), |_| since(object, &["lastTimestamp"]));
            (last, object.int_at(&["count"]).filter(|count| *count != 0).unwrap_or(1))
        }
    };
    let about = object.text_at(&["involvedObject", "kind"]).to_lowercase();
    let about = match object.text_at(&["involvedObject", "name"]) {
        "" => about,
        name => format!("{about}/{name}"),
    };
    let component = or(object.text_at(&["source", "component"]), object.text_at(&["reportingComponent"]));
    let source = match or(object.text_at(&["source", "host"]), object.text_at(&["reportingInstance"])) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.into(),
        text(object, &["type"]),
        text(object, &["reason"]),
        about.into(),
        text(object, &["involvedObject", "fieldPath"]),
        source.into(),
        object.text_at(&["message"]).trim().into(),
        first.into(),
        count.into(),
        name(object),
    ]
}
