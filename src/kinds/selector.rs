//! Label selectors as objects carry them (`metav1.LabelSelector`): what they match, and what they look like.

use serde_json::{Map, Value};

use super::go_shape;
use super::names;
use crate::field::Raw;
use crate::object::Fields;

/// One condition on the labels. `Equals` is what an entry of `matchLabels` asks for.
enum Requirement<'a> {
    Equals(&'a str),
    In(Vec<&'a str>),
    NotIn(Vec<&'a str>),
    Exists,
    DoesNotExist,
}

fn requirement<'a>(operator: &str, values: Vec<&'a str>) -> Option<Requirement<'a>> {
    match operator {
        "In" if !values.is_empty() => Some(Requirement::In(values)),
        "NotIn" if !values.is_empty() => Some(Requirement::NotIn(values)),
        "Exists" if values.is_empty() => Some(Requirement::Exists),
        "DoesNotExist" if values.is_empty() => Some(Requirement::DoesNotExist),
        _ => None,
    }
}

/// The conditions with their keys, sorted; none where the selector is not valid.
fn requirements(selector: &Value) -> Option<Vec<(&str, Requirement<'_>)>> {
    let mut found: Vec<(&str, Requirement<'_>)> = Vec::new();
    for (key, value) in selector.map_at(&["matchLabels"]).into_iter().flatten() {
        found.push((key, Requirement::Equals(value.as_str()?)));
    }
    for expression in selector.list_at(&["matchExpressions"]) {
        let values = expression.list_at(&["values"]).iter().filter_map(Value::as_str).collect();
        found.push((expression.text_at(&["key"]), requirement(expression.text_at(&["operator"]), values)?));
    }
    let valid = |(key, wanted): &(&str, Requirement<'_>)| {
        let values = match wanted {
            Requirement::Equals(value) => std::slice::from_ref(value),
            Requirement::In(values) | Requirement::NotIn(values) => values,
            Requirement::Exists | Requirement::DoesNotExist => &[],
        };
        names::qualified_name(key).is_empty() && values.iter().all(|value| names::label_value(value).is_empty())
    };
    if !found.iter().all(valid) {
        return None;
    }
    found.sort_by_key(|(key, _)| *key);
    Some(found)
}

/// Whether labels fit a selector; none where the selector is not valid. An absent selector fits nothing, an empty one
/// everything.
pub fn fits(selector: Option<&Value>, labels: Option<&Value>) -> Option<bool> {
    let Some(selector) = selector else { return Some(false) };
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let fits = |(key, wanted): (&str, Requirement<'_>)| match (wanted, label(key)) {
        (Requirement::Equals(value), found) => found == Some(value),
        (Requirement::In(values), found) => found.is_some_and(|found| values.contains(&found)),
        (Requirement::NotIn(values), found) => found.is_none_or(|found| !values.contains(&found)),
        (Requirement::Exists, found) => found.is_some(),
        (Requirement::DoesNotExist, found) => found.is_none(),
    };
    Some(requirements(selector)?.into_iter().all(fits))
}

/// Whether a selector asks for nothing.
pub fn is_empty(selector: &Value) -> bool {
    selector.map_at(&["matchLabels"]).is_none_or(Map::is_empty) && selector.list_at(&["matchExpressions"]).is_empty()
}

/// A selector as query parameters write it: `app=a,tier in (b,c),!old`. Empty where it is absent or not valid.
pub fn text(selector: Option<&Value>) -> String {
    let parts = selector.and_then(requirements).unwrap_or_default().into_iter().map(|(key, wanted)| {
        let listed = |operator: &str, mut values: Vec<&str>| {
            values.sort_unstable();
            values.dedup();
            format!("{key} {operator} ({})", values.join(","))
        };
        match wanted {
            Requirement::Equals(value) => format!("{key}={value}"),
            Requirement::In(values) => listed("in", values),
            Requirement::NotIn(values) => listed("notin", values),
            Requirement::Exists => key.to_owned(),
            Requirement::DoesNotExist => format!("!{key}"),
        }
    });
    parts.collect::<Vec<_>>().join(",")
}

/// A selector as messages show it.
pub fn shown(selector: Option<&Value>) -> Raw {
    go_shape::versioned(selector, "LabelSelector")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_and_print() {
        let selector = json!({
            "matchLabels": {"v": "1", "app": "a"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["f", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        });
        let labels = json!({"app": "a", "v": "1", "tier": "f"});
        assert_eq!(fits(Some(&selector), Some(&labels)), Some(true));
        assert_eq!(fits(Some(&selector), Some(&json!({"app": "a"}))), Some(false));
        assert_eq!(text(Some(&selector)), "app=a,!old,tier in (b,f),v=1");
        assert_eq!(
            shown(Some(&selector)).0,
            r#"{"matchLabels":{"app":"a","v":"1"},"matchExpressions":[{"key":"tier","operator":"In","values":["f","b"]},{"key":"old","operator":"DoesNotExist"}]}"#
        );
        assert_eq!(fits(None, Some(&labels)), Some(false));
        assert_eq!(fits(Some(&json!({})), None), Some(true));
        assert_eq!(fits(Some(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})), None), None);
    }
}
