//! What cells of many tables are made of.

use serde_json::Value;

use crate::kinds::selector;
use crate::object::Fields;
use crate::time::{self, Time};

pub const NONE: &str = "<none>";
pub const UNSET: &str = "<unset>";
pub const UNKNOWN: &str = "<unknown>";

pub fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"])
}

pub fn age(object: &Value) -> Value {
    since(object, &["metadata", "creationTimestamp"]).into()
}

pub fn text(object: &Value, path: &[&str]) -> Value {
    object.text_at(path).into()
}

/// A text, or `fallback` where it is empty.
pub fn text_or(object: &Value, path: &[&str], fallback: &str) -> Value {
    or(object.text_at(path), fallback).into()
}

pub fn or<'t>(text: &'t str, fallback: &'t str) -> &'t str {
    if text.is_empty() { fallback } else { text }
}

pub fn number(object: &Value, path: &[&str]) -> Value {
    integer(object, path).into()
}

pub fn integer(object: &Value, path: &[&str]) -> i64 {
    object.int_at(path).unwrap_or_default()
}

pub fn flag(object: &Value, path: &[&str]) -> Value {
    object.bool_at(path).unwrap_or_default().into()
}

/// How many elements a list has.
pub fn count(object: &Value, path: &[&str]) -> Value {
    object.list_at(path).len().into()
}

/// How many entries a map has.
pub fn size(object: &Value, path: &[&str]) -> usize {
    object.map_at(path).map_or(0, |map| map.len())
}

/// A number or text as text, as of an `IntOrString` or a quantity.
pub fn shown(value: Option<&Value>, fallback: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => fallback.to_owned(),
    }
}

pub fn is_deleted(object: &Value) -> bool {
    object.at(&["metadata", "deletionTimestamp"]).is_some()
}

/// The condition of a type.
pub fn condition<'o>(object: &'o Value, of: &str) -> Option<&'o Value> {
    object.list_at(&["status", "conditions"]).iter().find(|condition| condition.text_at(&["type"]) == of)
}

pub fn condition_is_true(object: &Value, of: &str) -> bool {
    condition(object, of).is_some_and(|condition| condition.text_at(&["status"]) == "True")
}

pub fn joined(values: &[Value], separator: &str) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

/// `a,b,c + 2 more...`
pub fn first_of(most: usize, values: &[String], separator: &str) -> String {
    let shown = values[..values.len().min(most)].join(separator);
    match values.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// A map of labels: `app=a,v=1`.
pub fn labels(object: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<(&str, &str)> = object
        .map_at(path)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    or(&pairs.join(","), NONE).to_owned()
}

pub fn label_selector(object: &Value, path: &[&str]) -> String {
    or(&selector::text(object.at(path)), NONE).to_owned()
}

/// The names of the containers of a pod's spec, and their images.
pub fn containers(spec: Option<&Value>) -> [Value; 2] {
    let containers = spec.map_or(&[][..], |spec| spec.list_at(&["containers"]));
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = containers.iter().map(|container| container.text_at(&[field])).collect();
        texts.join(",").into()
    })
}

/// The point in time at `path`.
pub fn time(object: &Value, path: &[&str]) -> Option<Time> {
    let text = object.text_at(path);
    time::parse(text).or_else(|_| time::parse_micro(text)).ok()
}

/// How long ago the time at `path` was.
pub fn since(object: &Value, path: &[&str]) -> String {
    time(object, path).map_or_else(|| UNKNOWN.to_owned(), elapsed)
}

/// How long ago a time was.
pub fn elapsed(time: Time) -> String {
    between(time, Time::now())
}

pub fn between(from: Time, to: Time) -> String {
    let micros = |time: Time| i128::from(time.seconds) * 1_000_000 + i128::from(time.micros);
    let seconds = (micros(to) - micros(from)) / 1_000_000;
    duration(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Seconds in the two units that matter: `90s`, `5m10s`, `3h`, `2d4h`, `3y20d`.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, "d", hours % 24, "h"),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => pair(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (3600, "60m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 61, "3h1m"),
            (47 * 3600, "47h"),
            (52 * 3600, "2d4h"),
            (72 * 3600, "3d"),
            (9 * 86_400, "9d"),
            (729 * 86_400, "729d"),
            (731 * 86_400, "2y1d"),
            (8 * 365 * 86_400 + 86_400, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let values: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(first_of(3, &values, ","), "a,b,c + 2 more...");
        assert_eq!(first_of(3, &values[..3], ","), "a,b,c");
        assert_eq!(first_of(3, &[], ","), "");
    }
}
