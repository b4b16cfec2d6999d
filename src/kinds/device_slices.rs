//! ResourceSlice: the devices that a driver offers.

use serde_json::{Map, Value};

use super::Kind;
use super::Selectable;
use super::device_claims::{GROUP, bounded, check_binding, check_pool_name, check_qualified_name, check_taint, unique};
use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::pod_parts;
use super::volume_shapes::NODE_SELECTOR_TERM;
use super::volume_sources::csi_driver_name;
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;
use crate::quantity::Quantity;

pub static KINDS: &[&dyn Kind] = &[&ResourceSlice];

const MAX_DEVICES: usize = 128;
/// When their taints or counters take room.
const MAX_LARGE_DEVICES: usize = 64;
const MAX_ATTRIBUTES: usize = 32;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_TAINTS: usize = 16;
const MAX_ATTRIBUTE_VALUE: usize = 64;
const MAX_OPTIONS: usize = 10;
/// A domain, a slash, an identifier.
const MAX_KEY: usize = 63 + 1 + 32;

const ATTRIBUTE: Shape = &[
    ("IntValue", "int", Part::Plain),
    ("BoolValue", "bool", Part::Plain),
    ("StringValue", "string", Part::Plain),
    ("VersionValue", "version", Part::Plain),
    ("IntValues", "ints", Part::Plain),
    ("BoolValues", "bools", Part::Plain),
    ("StringValues", "strings", Part::Plain),
    ("VersionValues", "versions", Part::Plain),
];

/// Fields of devices and of their attributes that no stable version takes yet.
const DISABLED: &[&str] = &["nodeAllocatableResourceMappings"];
const DISABLED_VALUES: &[&str] = &["ints", "bools", "strings", "versions"];

pub struct ResourceSlice;

fn drop_disabled(object: &mut Value) {
    for device in object.items_mut(&["spec", "devices"]) {
        for field in DISABLED {
            device.take_at(&[field]);
        }
        if let Some(Value::Object(attributes)) = device.at_mut(&["attributes"]) {
            for attribute in attributes.values_mut() {
                for field in DISABLED_VALUES {
                    attribute.take_at(&[field]);
                }
            }
        }
    }
}

impl Kind for ResourceSlice {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "ResourceSlice"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    /// A taint is from now on, unless it says otherwise.
    fn default(&self, object: &mut Value) {
        for device in object.items_mut(&["spec", "devices"]) {
            for taint in device.items_mut(&["taints"]) {
                taint.set_default("timeAdded", meta::now());
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_disabled(object);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        drop_disabled(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_slice(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_slice(object, Some(old), errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = object.text_at(&["spec", "driver"]);
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        let driver = crate::field::go_quote(driver);
        vec![format!("spec.driver: driver names should be lowercase; {driver} contains uppercase characters")]
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[
            ("spec.nodeName", |object| object.text_at(&["spec", "nodeName"]).to_owned()),
            ("spec.driver", |object| object.text_at(&["spec", "driver"]).to_owned()),
        ]
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

/// Where devices are. Each of the fields counts only when it says something.
fn check_place(object: &Value, fields: &[&str], empty: &str, path: &Path<'_>, errors: &mut Errors) -> Vec<String> {
    let mut set = Vec::new();
    for field in fields {
        let at = path.child(field);
        match object.at(&[field]) {
            None => continue,
            Some(Value::String(name)) if name.is_empty() => {
                errors.invalid(&at, "", empty);
                continue;
            }
            Some(Value::String(name)) => {
                names::invalid_each(errors, &at, name.as_str(), names::dns_subdomain(name));
            }
            Some(Value::Bool(false)) => {
                errors.invalid(&at, false, "must be either unset or set to true");
                continue;
            }
            Some(Value::Bool(true)) => {}
            Some(selector) => pod_parts::node_selector(errors, &at, selector),
        }
        set.push(format!("`{field}`"));
    }
    set
}

fn check_slice(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    csi_driver_name(spec.text_at(&["driver"]), &path.child("driver"), errors);
    let pool = path.child("pool");
    check_pool_name(spec.text_at(&["pool", "name"]), &pool.child("name"), errors);
    let count = spec.int_at(&["pool", "resourceSliceCount"]).unwrap_or_default();
    if count <= 0 {
        errors.invalid(&pool.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if let Some(generation) = spec.int_at(&["pool", "generation"]).filter(|n| *n < 0) {
        errors.invalid(&pool.child("generation"), generation, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        for (at, steps) in [(pool.child("name"), &["pool", "name"][..]), (path.child("driver"), &["driver"])] {
            let (new, before) = (spec.text_at(steps), old["spec"].text_at(steps));
            if new != before {
                errors.invalid(&at, new, meta::FIELD_IMMUTABLE);
            }
        }
        let (new, before) = (spec.at(&["nodeName"]), old.at(&["spec", "nodeName"]));
        meta::immutable(errors, &path.child("nodeName"), new, before);
    }
    let unset = "must be either unset or set to a non-empty string";
    let fields = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let set = check_place(spec, &fields, unset, &path, errors);
    if let Some(selector) = spec.at(&["nodeSelector"]) {
        let terms = selector.list_at(&["nodeSelectorTerms"]);
        if terms.len() != 1 {
            let at = path.child("nodeSelector");
            let shown = terms.iter().map(|term| go_shape::by_value(Some(term), NODE_SELECTOR_TERM).0);
            let shown = Raw(if terms.is_empty() {
                "null".into()
            } else {
                format!("[{}]", shown.collect::<Vec<_>>().join(","))
            });
            errors.invalid(&at.child("nodeSelectorTerms"), shown, "must have exactly one node selector term");
        }
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.required(&path, detail),
        1 => {}
        _ => {
            let detail = format!("{detail}, but multiple fields are set");
            errors.invalid(&path, format!("{{{}}}", set.join(", ")), detail);
        }
    }
    let devices = spec.list_at(&["devices"]);
    let sets = spec.list_at(&["sharedCounters"]);
    if !devices.is_empty() && !sets.is_empty() {
        errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    check_devices(spec, old, &path.child("devices"), errors);
    let list = path.child("sharedCounters");
    bounded(sets, MAX_COUNTER_SETS, &list, errors, |set, path, errors| {
        check_counters(set, "name", path, errors);
    });
    if sets.len() <= MAX_COUNTER_SETS {
        unique(sets, &list, errors, |set| set.text_at(&["name"]).to_owned());
    }
}

/// A named set of counters, offered or consumed.
fn check_counters(set: &Value, name_field: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = set.text_at(&[name_field]);
    if name.is_empty() {
        errors.required(&path.child(name_field), "");
    } else {
        names::invalid_each(errors, &path.child(name_field), name, names::dns_label(name));
    }
    let at = path.child("counters");
    match set.map_at(&["counters"]).filter(|counters| !counters.is_empty()) {
        None => errors.required(&at, ""),
        Some(counters) if counters.len() > MAX_COUNTERS => errors.too_many(&at, counters.len(), MAX_COUNTERS),
        Some(counters) => {
            for name in counters.keys() {
                let shown = shortened(name, 63);
                names::invalid_each(errors, &at.key(&shown), name.as_str(), names::dns_label(name));
            }
        }
    }
}

/// A key without its middle where it is longer than keys are.
fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let rest = max - 3;
    let (head, tail) = (rest.div_ceil(2), text.len() - rest / 2);
    match (text.get(..head), text.get(tail..)) {
        (Some(head), Some(tail)) => format!("{head}...{tail}"),
        _ => text.to_owned(),
    }
}

fn check_devices(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let devices = spec.list_at(&["devices"]);
    let large = |device: &Value| ["taints", "consumesCounters"].iter().any(|f| !device.list_at(&[f]).is_empty());
    let max = if devices.iter().any(large) { MAX_LARGE_DEVICES } else { MAX_DEVICES };
    let each = spec.bool_at(&["perDeviceNodeSelection"]) == Some(true);
    let before = old.map(|old| old.list_at(&["spec", "devices"])).unwrap_or_default();
    bounded(devices, max, path, errors, |device, path, errors| {
        let name = device.text_at(&["name"]);
        names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        check_contents(device, path, errors);
        let same = before.iter().find(|other| other.text_at(&["name"]) == name);
        if same.is_none_or(|same| same.get("taints") != device.get("taints")) {
            bounded(device.list_at(&["taints"]), MAX_TAINTS, &path.child("taints"), errors, check_taint);
        }
        let consumed = device.list_at(&["consumesCounters"]);
        let list = path.child("consumesCounters");
        bounded(consumed, MAX_CONSUMPTIONS, &list, errors, |set, path, errors| {
            check_counters(set, "counterSet", path, errors);
        });
        if consumed.len() <= MAX_CONSUMPTIONS {
            unique(consumed, &list, errors, |set| set.text_at(&["counterSet"]).to_owned());
        }
        check_device_place(device, each, path, errors);
        check_binding(device, path, errors);
    });
    if devices.len() <= max {
        unique(devices, path, errors, |device| device.text_at(&["name"]).to_owned());
    }
}

fn check_device_place(device: &Value, each: bool, path: &Path<'_>, errors: &mut Errors) {
    const FIELDS: &[&str] = &["nodeName", "nodeSelector", "allNodes"];
    if !each {
        if FIELDS.iter().any(|field| device.at(&[field]).is_some()) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set \
                          to true in the ResourceSlice spec";
            errors.invalid(path, Raw("null".to_owned()), detail);
        }
        return;
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
                  set to true in the ResourceSlice spec";
    let set = check_place(device, FIELDS, "must not be empty", path, errors);
    match set.len() {
        0 => errors.required(path, detail),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", set.join(", ")), detail),
    }
}

fn check_contents(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    let empty = Map::new();
    let attributes = device.map_at(&["attributes"]).unwrap_or(&empty);
    let capacity = device.map_at(&["capacity"]).unwrap_or(&empty);
    let total = attributes.len() + capacity.len();
    if total > MAX_ATTRIBUTES {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.invalid(path, total, detail);
    }
    let at = path.child("attributes");
    for (name, attribute) in attributes {
        let key = shortened(name, MAX_KEY);
        check_qualified_name(name, &at.key(&key), errors);
        check_attribute(attribute, &at.key(&key), errors);
    }
    let shared = device.bool_at(&["allowMultipleAllocations"]) == Some(true);
    let at = path.child("capacity");
    for (name, amount) in capacity {
        let key = shortened(name, MAX_KEY);
        let path = at.key(&key);
        check_qualified_name(name, &path, errors);
        let Some(policy) = amount.at(&["requestPolicy"]) else { continue };
        let path = path.child("requestPolicy");
        if shared {
            check_policy(policy, &amount["value"], &path, errors);
        } else {
            errors.forbidden(&path, "allowMultipleAllocations must be true");
        }
    }
}

fn check_attribute(attribute: &Value, path: &Path<'_>, errors: &mut Errors) {
    let values = ["bool", "int", "string", "version"].iter().filter(|field| attribute.at(&[field]).is_some()).count();
    for field in ["string", "version"] {
        let Some(text) = attribute.at(&[field]).and_then(Value::as_str) else { continue };
        let at = path.child(field);
        if field == "version" && !is_semver(text) {
            errors.invalid(&at, text, "must be a string compatible with semver.org spec 2.0.0");
        }
        if text.len() > MAX_ATTRIBUTE_VALUE {
            errors.too_long(&at, MAX_ATTRIBUTE_VALUE);
        }
    }
    const DETAIL: &str = "exactly one value must be specified";
    match values {
        0 => errors.invalid(path, "", DETAIL),
        1 => {}
        _ => errors.invalid(path, go_shape::by_value(Some(attribute), ATTRIBUTE), DETAIL),
    }
}

fn is_semver(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = |part: &str| {
        part == "0" || (!part.starts_with('0') && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|p| part(p) && (number(p) || !digits(p))))
        && build.is_none_or(|build| build.split('.').all(part))
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

/// What may be asked for of a capacity that is shared out.
fn check_policy(policy: &Value, capacity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let options = policy.list_at(&["validValues"]);
    let range = policy.at(&["validRange"]);
    let default = policy.at(&["default"]);
    match (options.is_empty(), range) {
        (true, None) => {}
        (false, Some(_)) => errors.forbidden(
            path,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (false, None) => match default {
            None => errors.required(&path.child("default"), "required when validValues is defined"),
            Some(default) => check_options(options, default, capacity, &path.child("validValues"), errors),
        },
        (true, Some(range)) => match default {
            None => errors.required(&path.child("default"), "required when validRange is defined"),
            Some(default) => check_range(range, default, capacity, &path.child("validRange"), errors),
        },
    }
}

fn nanos(value: &Value) -> i128 {
    amount(value).map_or(0, |amount| amount.nanos())
}

fn check_options(options: &[Value], default: &Value, capacity: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, pair) in options.windows(2).enumerate().filter(|(_, pair)| nanos(&pair[0]) > nanos(&pair[1])) {
        errors.invalid(&path.index(i + 1), &pair[1], "values must be sorted in ascending order");
    }
    bounded(options, MAX_OPTIONS, path, errors, |option, path, errors| {
        if nanos(option) > nanos(capacity) {
            let detail = format!("option is larger than capacity value: {}", text(capacity));
            errors.invalid(path, option, detail);
        }
    });
    let tried = options.len() <= MAX_OPTIONS;
    if tried {
        unique(options, path, errors, |option| amount(option).map_or(0, |amount| amount.value()).to_string());
    }
    if !(tried && options.iter().any(|option| nanos(option) == nanos(default))) {
        errors.invalid(path, default, "default value is not valid according to the requestPolicy");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("0")
}

fn check_range(range: &Value, default: &Value, capacity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(min) = range.at(&["min"]) else {
        return errors.required(&path.child("min"), "required when validRange is defined");
    };
    let mut check = |wrong: bool, field: &str, value: &Value, detail: String| {
        if wrong {
            errors.invalid(&path.child(field), value, detail);
        }
    };
    let larger = |what: &str| format!("{what} is larger than capacity value: {}", text(capacity));
    let (least, most) = (nanos(min), nanos(capacity));
    check(least > most, "min", min, larger("min"));
    check(nanos(default) < least, "min", default, format!("default is less than min: {}", text(min)));
    let max = range.at(&["max"]);
    if let Some(max) = max {
        check(least > nanos(max), "max", min, format!("min is larger than max: {}", text(max)));
        check(nanos(max) > most, "max", max, larger("max"));
        check(nanos(default) > nanos(max), "max", default, format!("default is more than max: {}", text(max)));
    }
    let Some(step) = range.at(&["step"]) else { return };
    let (Some(first), Some(width)) = (amount(min), amount(step)) else { return };
    if least + width.nanos() > most {
        let added = first.plus(&width);
        check(true, "step", step, larger(&format!("one step {added}")));
    }
    for value in [Some(default), max].into_iter().flatten() {
        let distance = amount(value).map_or(0, |amount| amount.value()).saturating_sub(first.value());
        let off = distance.checked_rem(width.value()).is_some_and(|rest| rest != 0);
        let detail = format!("value is not a multiple of a given step ({}) from ({})", text(step), text(min));
        check(off, "step", value, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(devices: Value) -> Vec<String> {
        let object = json!({"spec": {
            "driver": "d.example.com", "nodeName": "n", "devices": devices,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}});
        let mut errors = Errors::default();
        ResourceSlice.validate(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_device_has_attributes_of_one_value() {
        let device = |attributes: Value| json!([{"name": "a", "attributes": attributes}]);
        assert!(
            run(device(json!({"x.example.com/model": {"string": "m"}, "v": {"version": "1.2.3-a.1+b"}}))).is_empty()
        );
        let errors = run(device(json!({"a-b": {"version": "01.2.3", "int": 1}})));
        assert_eq!(errors.len(), 3);
        assert!(errors[2].contains(r#"{"IntValue":1,"BoolValue":null,"StringValue":null,"VersionValue":"01.2.3","#));
    }

    #[test]
    fn capacity_is_shared_by_its_policy() {
        let range = json!({"min": "1Gi", "max": "8Gi", "step": "3Gi"});
        let policy = json!({"default": "2Gi", "validRange": range});
        let device = json!({"name": "a", "allowMultipleAllocations": true, "capacity": {"m": {"value": "4Gi", "requestPolicy": policy}}});
        assert_eq!(
            run(json!([device])),
            [
                "spec.devices[0].capacity[m].requestPolicy.validRange.max: Invalid value: \"8Gi\": max is larger than capacity value: 4Gi",
                "spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (3Gi) from (1Gi)",
                "spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: \"8Gi\": value is not a multiple of a given step (3Gi) from (1Gi)",
            ]
        );
    }

    #[test]
    fn long_keys_lose_their_middle() {
        assert_eq!(shortened("abcdefghijklmnopqrstuvwxyz", 16), "abcdefg...uvwxyz");
    }
}
