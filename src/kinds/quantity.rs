//! Amounts (`500m`, `1Gi`) and the names of what they are amounts of.

use serde_json::Value;

use super::names;
use crate::field::{Errors, Path, Raw};

/// The suffixes, as powers of ten in billionths or as powers of two.
const DECIMAL: &[(&str, i32)] =
    &[("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: &[(&str, u32)] = &[("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// A quantity in billionths, rounded up; beyond what fits, the largest there is. None where it is malformed.
pub fn nanos(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let places = i32::try_from(fraction.len()).ok()?;
    let (exponent, shift) = match BINARY.iter().find(|(name, _)| *name == suffix) {
        Some((_, shift)) => (0, *shift),
        None => match DECIMAL.iter().find(|(name, _)| *name == suffix) {
            Some((_, exponent)) => (*exponent, 0),
            None => (suffix.strip_prefix(['e', 'E'])?.parse().ok()?, 0),
        },
    };
    let mut value: i128 = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(i128::MAX) };
    value = value.saturating_mul(1 << shift);
    let scale = exponent - places + 9;
    let factor = 10i128.checked_pow(scale.unsigned_abs()).unwrap_or(i128::MAX);
    value = if scale >= 0 { value.saturating_mul(factor) } else { value / factor + i128::from(value % factor > 0) };
    Some(if negative { -value } else { value })
}

fn of(value: &Value) -> i128 {
    match value {
        Value::String(text) => nanos(text).unwrap_or_default(),
        other => nanos(&other.to_string()).unwrap_or_default(),
    }
}

/// Which of two amounts is larger.
pub fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    of(a).cmp(&of(b))
}

pub fn nonnegative(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    if of(value) < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

pub fn positive(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    if of(value) <= 0 {
        errors.invalid(path, value, "must be greater than zero");
    }
}

/// An amount of which only the whole units count.
pub fn basic(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    let amount = of(value);
    if amount <= -1_000_000_000 {
        errors.invalid(path, Raw((amount / 1_000_000_000).to_string()), "must be a valid resource quantity");
    }
}

/// How many times `b` goes into `a`.
pub fn ratio(a: &Value, b: &Value) -> f64 {
    of(a) as f64 / of(b) as f64
}

/// Whether an amount has no fraction.
pub fn is_whole_amount(value: &Value) -> bool {
    of(value) % 1_000_000_000 == 0
}

/// An amount of the resource `name`.
pub fn resource_value(errors: &mut Errors, path: &Path<'_>, name: &str, value: &Value) {
    nonnegative(errors, path, value);
    if is_whole(name) && !is_whole_amount(value) {
        errors.invalid(path, value, "must be an integer");
    }
}

const WHOLE: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_whole(name: &str) -> bool {
    WHOLE.contains(&name) || is_extended(name)
}

/// A resource of Kubernetes itself: without a domain, or with its own.
pub fn is_native(name: &str) -> bool {
    name.split_once('/').is_none_or(|(domain, _)| domain.contains("kubernetes.io"))
}

/// A resource that somebody else brings: it is whole, and has a domain.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_container_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "storage",
    "requests.storage",
];

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || WHOLE.contains(&name) || is_huge_pages(name)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// What a quota can limit, of the resources without a domain.
pub fn is_quota_standard(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// Whether more of a resource may be promised than there is: its limit may be above what is requested.
pub fn is_overcommitted(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// The name of any resource.
pub fn resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let messages = names::qualified_name(name);
    if messages.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    names::invalid_each(errors, path, name, messages);
}

/// The name of a resource that a container may ask for.
pub fn container_resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    resource_name(errors, path, name);
    if !names::qualified_name(name).is_empty() {
        return;
    }
    if !name.contains('/') {
        if !is_container_standard(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read() {
        for (text, nano) in [
            ("1", 1_000_000_000),
            ("500m", 500_000_000),
            ("-1.5", -1_500_000_000),
            ("1Ki", 1_024_000_000_000),
            ("1e3", 1_000_000_000_000),
            (".5", 500_000_000),
            ("0.1n", 1),
        ] {
            assert_eq!(nanos(text), Some(nano), "{text}");
        }
        assert_eq!(nanos("x"), None);
        assert_eq!(nanos("1Q"), None);
        assert_eq!(compare(&json!("1Gi"), &json!(1024 * 1024 * 1024)), std::cmp::Ordering::Equal);
    }

    #[test]
    fn some_resources_come_whole() {
        let say = |name: &str, value: Value| {
            let mut errors = Errors::default();
            resource_value(&mut errors, &Path::new("r"), name, &value);
            errors.0.len()
        };
        assert_eq!(say("cpu", json!("100m")), 0);
        assert_eq!(say("pods", json!("100m")), 1);
        assert_eq!(say("example.com/gpu", json!("1500m")), 1);
        assert_eq!(say("cpu", json!("-1")), 1);
    }
}
