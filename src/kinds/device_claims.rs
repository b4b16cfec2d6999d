//! ResourceClaim, ResourceClaimTemplate and DeviceClass: devices as they are asked for and given.

use serde_json::Value;

use super::cel::{self, Output, Scope};
use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::pod_parts;
use super::quantity;
use super::volume_sources::csi_driver_name;
use super::{Kind, NameForm, copy_field};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

pub const GROUP: &str = "resource.k8s.io";

pub static KINDS: &[&dyn Kind] = &[&ResourceClaim, &ResourceClaimTemplate, &DeviceClass];

const MODES: &[&str] = &["All", "ExactCount"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
const MAX_RESERVATIONS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
const MAX_DEVICE_CONDITIONS: usize = 8;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_IPS: usize = 16;
const MAX_IDENTIFIER: usize = 32;
const MAX_POOL_NAME: usize = 253;

const SELECTORS: Part = Part::List(&[("CEL", "cel", Part::Pointer(&[("Expression", "expression", Part::Text)]))]);
const TOLERATIONS: Part = Part::List(&[
    ("Key", "key", Part::Text),
    ("Operator", "operator", Part::Text),
    ("Value", "value", Part::Text),
    ("Effect", "effect", Part::Text),
    ("TolerationSeconds", "tolerationSeconds", Part::Plain),
]);
const CAPACITY: Part = Part::Pointer(&[("Requests", "requests", Part::Plain)]);
const OPAQUE: Part = Part::Pointer(&[("Driver", "driver", Part::Text), ("Parameters", "parameters", Part::Plain)]);

const CLAIM_SPEC: Shape = &[(
    "Devices",
    "devices",
    Part::Struct(&[
        (
            "Requests",
            "requests",
            Part::List(&[
                ("Name", "name", Part::Text),
                (
                    "Exactly",
                    "exactly",
                    Part::Pointer(&[
                        ("DeviceClassName", "deviceClassName", Part::Text),
                        ("Selectors", "selectors", SELECTORS),
                        ("AllocationMode", "allocationMode", Part::Text),
                        ("Count", "count", Part::Int),
                        ("AdminAccess", "adminAccess", Part::Plain),
                        ("Tolerations", "tolerations", TOLERATIONS),
                        ("Capacity", "capacity", CAPACITY),
                    ]),
                ),
                (
                    "FirstAvailable",
                    "firstAvailable",
                    Part::List(&[
                        ("Name", "name", Part::Text),
                        ("DeviceClassName", "deviceClassName", Part::Text),
                        ("Selectors", "selectors", SELECTORS),
                        ("AllocationMode", "allocationMode", Part::Text),
                        ("Count", "count", Part::Int),
                        ("Tolerations", "tolerations", TOLERATIONS),
                        ("Capacity", "capacity", CAPACITY),
                    ]),
                ),
            ]),
        ),
        (
            "Constraints",
            "constraints",
            Part::List(&[
                ("Requests", "requests", Part::Plain),
                ("MatchAttribute", "matchAttribute", Part::Plain),
                ("DistinctAttribute", "distinctAttribute", Part::Plain),
            ]),
        ),
        ("Config", "config", Part::List(&[("Requests", "requests", Part::Plain), ("Opaque", "opaque", OPAQUE)])),
    ]),
)];

/// A list of at most `max` elements, each of them checked; a longer one isn't looked at.
pub fn bounded(
    list: &[Value],
    max: usize,
    path: &Path<'_>,
    errors: &mut Errors,
    check: impl Fn(&Value, &Path<'_>, &mut Errors),
) {
    if list.len() > max {
        return errors.too_many(path, list.len(), max);
    }
    for (i, item) in list.iter().enumerate() {
        check(item, &path.index(i), errors);
    }
}

/// The elements of a list that came before under another index.
pub fn unique(list: &[Value], path: &Path<'_>, errors: &mut Errors, key: impl Fn(&Value) -> String) {
    let keys: Vec<String> = list.iter().map(key).collect();
    for (i, key) in keys.iter().enumerate().filter(|(i, key)| keys[..*i].contains(key)) {
        errors.duplicate(&path.index(i), key);
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn name_of(value: &Value) -> String {
    value.text_at(&["name"]).to_owned()
}

/// How many devices a request is for, where it does not say.
fn default_claim(spec: &mut Value) {
    fn default_request(request: &mut Value) {
        if request.text_at(&["allocationMode"]).is_empty() {
            request.set(&["allocationMode"], "ExactCount");
        }
        let exact = request.text_at(&["allocationMode"]) == "ExactCount";
        if exact && request.int_at(&["count"]).unwrap_or_default() == 0 {
            request.set(&["count"], 1);
        }
        for toleration in request.items_mut(&["tolerations"]) {
            if toleration.text_at(&["operator"]).is_empty() {
                toleration.set(&["operator"], "Equal");
            }
        }
    }
    for request in spec.items_mut(&["devices", "requests"]) {
        if let Some(exactly) = request.at_mut(&["exactly"]).filter(|value| value.is_object()) {
            default_request(exactly);
        }
        request.items_mut(&["firstAvailable"]).for_each(default_request);
    }
}

fn check_claim(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("devices");
    let requests = spec.list_at(&["devices", "requests"]);
    let list = path.child("requests");
    bounded(requests, MAX_REQUESTS, &list, errors, check_request);
    if requests.len() <= MAX_REQUESTS {
        unique(requests, &list, errors, name_of);
    }
    let constraints = spec.list_at(&["devices", "constraints"]);
    bounded(constraints, MAX_CONSTRAINTS, &path.child("constraints"), errors, |constraint, path, errors| {
        check_request_refs(constraint, requests, path, errors);
        match (constraint.at(&["matchAttribute"]), constraint.at(&["distinctAttribute"])) {
            (Some(name), _) => check_full_name(name, &path.child("matchAttribute"), errors),
            (None, Some(name)) => check_full_name(name, &path.child("distinctAttribute"), errors),
            (None, None) => errors.required(
                path,
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            ),
        }
    });
    let configs = spec.list_at(&["devices", "config"]);
    bounded(configs, MAX_CONFIGS, &path.child("config"), errors, |config, path, errors| {
        check_request_refs(config, requests, path, errors);
        check_config(config, path, errors);
    });
}

fn check_request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = request.text_at(&["name"]);
    names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
    let alternatives = request.list_at(&["firstAvailable"]);
    match (request.at(&["exactly"]), alternatives) {
        (None, []) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(exactly), []) => check_devices(exactly, &path.child("exactly"), errors),
        (None, _) => {
            let list = path.child("firstAvailable");
            bounded(alternatives, MAX_ALTERNATIVES, &list, errors, |alternative, path, errors| {
                let name = alternative.text_at(&["name"]);
                names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
                check_devices(alternative, path, errors);
            });
            if alternatives.len() <= MAX_ALTERNATIVES {
                unique(alternatives, &list, errors, name_of);
            }
        }
        (Some(_), _) => errors.invalid(
            path,
            Raw("null".to_owned()),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
    }
}

/// Which devices, and how many of them.
fn check_devices(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    let class = request.text_at(&["deviceClassName"]);
    if class.is_empty() {
        errors.required(&path.child("deviceClassName"), "");
    } else {
        names::invalid_each(errors, &path.child("deviceClassName"), class, names::dns_subdomain(class));
    }
    check_selectors(request.list_at(&["selectors"]), &path.child("selectors"), errors);
    let count = request.int_at(&["count"]).unwrap_or_default();
    match request.text_at(&["allocationMode"]) {
        "All" if count != 0 => {
            errors.invalid(&path.child("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        mode => errors.not_supported(&path.child("allocationMode"), mode, MODES),
    }
    let list = path.child("tolerations");
    for (i, toleration) in request.list_at(&["tolerations"]).iter().enumerate() {
        check_toleration(toleration, &list.index(i), errors);
    }
}

fn check_selectors(selectors: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let scope = Scope::device();
    bounded(selectors, MAX_SELECTORS, path, errors, |selector, path, errors| {
        let path = path.child("cel");
        let Some(cel) = selector.at(&["cel"]) else { return errors.required(&path, "") };
        let expression = cel.text_at(&["expression"]);
        let path = path.child("expression");
        if expression.len() > MAX_EXPRESSION {
            return errors.too_long(&path, MAX_EXPRESSION);
        }
        cel::check(expression, &scope, Output::Selected, &path, errors);
    });
}

fn check_toleration(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = toleration.text_at(&["key"]);
    if !key.is_empty() {
        names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
    }
    let value = toleration.text_at(&["value"]);
    match toleration.text_at(&["operator"]) {
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => names::invalid_each(errors, &path.child("value"), value, names::label_value(value)),
        "" => errors.required(&path.child("operator"), ""),
        operator => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
    }
    let effect = toleration.text_at(&["effect"]);
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(&path.child("effect"), effect, EFFECTS);
    }
}

/// What keeps pods off a device.
pub fn check_taint(taint: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = taint.text_at(&["key"]);
    names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
    let value = taint.text_at(&["value"]);
    names::invalid_each(errors, &path.child("value"), value, names::label_value(value));
    match taint.text_at(&["effect"]) {
        "" => errors.required(&path.child("effect"), ""),
        effect if !EFFECTS.contains(&effect) => errors.not_supported(&path.child("effect"), effect, EFFECTS),
        _ => {}
    }
}

/// The requests that a constraint, a configuration or a result is about: `request` or `request/alternative`.
fn check_request_refs(object: &Value, requests: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let refs = object.list_at(&["requests"]);
    let list = path.child("requests");
    bounded(refs, MAX_REQUESTS, &list, errors, |name, path, errors| {
        check_request_ref(name.as_str().unwrap_or_default(), requests, path, errors);
    });
    if refs.len() <= MAX_REQUESTS {
        unique(refs, &list, errors, text_of);
    }
}

fn check_request_ref(name: &str, requests: &[Value], path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let segments: Vec<&str> = name.split('/').collect();
    if segments.len() > 2 {
        return errors.invalid(path, name, DETAIL);
    }
    for segment in &segments {
        names::invalid_each(errors, path, *segment, names::dns_label(segment));
    }
    let found = requests.iter().rev().find(|request| request.text_at(&["name"]) == segments[0]);
    let has = |request: &Value, sub: &&str| {
        request.list_at(&["firstAvailable"]).iter().any(|alternative| alternative.text_at(&["name"]) == *sub)
    };
    if !found.is_some_and(|request| segments.get(1).is_none_or(|sub| has(request, sub))) {
        errors.invalid(path, name, DETAIL);
    }
}

fn check_config(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("opaque");
    let Some(opaque) = config.at(&["opaque"]) else { return errors.required(&path, "") };
    csi_driver_name(opaque.text_at(&["driver"]), &path.child("driver"), errors);
    check_raw(opaque.at(&["parameters"]), &path.child("parameters"), errors);
}

/// Somebody else's object, kept as it is.
fn check_raw(raw: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    match raw {
        None => errors.required(path, ""),
        Some(raw) if raw.to_string().len() > MAX_PARAMETERS => errors.too_long(path, MAX_PARAMETERS),
        Some(raw) if !raw.is_object() => errors.invalid(path, "<value omitted>", "must be a valid JSON object"),
        Some(_) => {}
    }
}

/// The name of an attribute or capacity: a C identifier, with or without the domain of who defines it.
pub fn check_qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let identifier = |text: &str, errors: &mut Errors| {
        if text.len() > MAX_IDENTIFIER {
            errors.too_long(path, MAX_IDENTIFIER);
        }
        names::invalid_each(errors, path, text, names::c_identifier(text));
    };
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] => identifier(name, errors),
        [domain, name] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                csi_driver_name(domain, path, errors);
            }
            if name.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(name, errors);
            }
        }
        // Upstream lets pass what has more slashes.
        _ => {}
    }
}

fn check_full_name(name: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = name.as_str().unwrap_or_default();
    check_qualified_name(name, path, errors);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// The name of a pool: subdomains, separated by slashes.
pub fn check_pool_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX_POOL_NAME {
        errors.too_long(path, MAX_POOL_NAME);
    }
    for part in name.split('/') {
        names::invalid_each(errors, path, part, names::dns_subdomain(part));
    }
}

/// The conditions for which binding a pod waits, and those at which it gives up.
pub fn check_binding(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    let label = |name: &Value, path: &Path<'_>, errors: &mut Errors| {
        let name = name.as_str().unwrap_or_default();
        names::invalid_each(errors, path, name, names::qualified_name(name));
    };
    let (wanted, failed) = (device.list_at(&["bindingConditions"]), device.list_at(&["bindingFailureConditions"]));
    let (wanted_at, failed_at) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    bounded(wanted, MAX_BINDING_CONDITIONS, &wanted_at, errors, label);
    bounded(failed, MAX_BINDING_CONDITIONS, &failed_at, errors, label);
    unique(wanted, &wanted_at, errors, text_of);
    unique(failed, &failed_at, errors, text_of);
    for (i, condition) in failed.iter().enumerate().filter(|(_, condition)| wanted.contains(condition)) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(&failed_at.index(i), condition, detail);
    }
    let null = || Raw("null".to_owned());
    if wanted.is_empty() && !failed.is_empty() {
        errors.invalid(&wanted_at, null(), "bindingConditions are required to use bindingFailureConditions");
    }
    if failed.is_empty() && !wanted.is_empty() {
        errors.invalid(&failed_at, null(), "bindingFailureConditions are required to use bindingConditions");
    }
}

pub struct ResourceClaim;

/// Which device an entry of the status is about, and which share of it.
fn device_id(entry: &Value) -> String {
    let mut parts: Vec<&str> = ["driver", "pool", "device"].iter().map(|field| entry.text_at(&[field])).collect();
    parts.extend(entry.at(&["shareID"]).and_then(Value::as_str));
    parts.join("/")
}

fn allocated(claim: &Value) -> &[Value] {
    claim.list_at(&["status", "allocation", "devices", "results"])
}

impl Kind for ResourceClaim {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "ResourceClaim"
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.at_mut(&["spec"]) {
            default_claim(spec);
        }
    }

    /// What is said of devices that are given back goes with them.
    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        super::keep_metadata(object, old);
        let bare = |entry: &Value| device_id(entry).split('/').take(3).collect::<Vec<_>>().join("/");
        let kept: Vec<String> = allocated(object).iter().map(bare).collect();
        let gone: Vec<String> = allocated(old).iter().map(bare).filter(|id| !kept.contains(id)).collect();
        if let Some(Value::Array(devices)) = object.at_mut(&["status", "devices"]) {
            devices.retain(|device| !gone.contains(&bare(device)));
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_claim(&object["spec"], &Path::new("spec"), errors);
    }

    /// The spec stays, and so needs no second look.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object.at(&["spec"]) != old.at(&["spec"]) {
            let shown = go_shape::by_value(object.at(&["spec"]), CLAIM_SPEC);
            errors.invalid(&Path::new("spec"), shown, meta::FIELD_IMMUTABLE);
        }
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let allocation = object.at(&["status", "allocation"]);
        check_reservations(object, old, &status.child("reservedFor"), errors);
        let devices = object.list_at(&["status", "devices"]);
        let given: Vec<String> = allocated(object).iter().map(device_id).collect();
        let list = status.child("devices");
        for (i, device) in devices.iter().enumerate() {
            check_device_status(device, &given, &list.index(i), errors);
        }
        let ids: Vec<String> = devices.iter().map(device_id).collect();
        for (i, id) in ids.iter().enumerate().filter(|(i, id)| ids[..*i].contains(id)) {
            errors.duplicate(&list.index(i), Raw(id.clone()));
        }
        let path = status.child("allocation");
        match (old.at(&["status", "allocation"]), allocation) {
            (Some(before), Some(now)) if before != now => errors.invalid(&path, now, meta::FIELD_IMMUTABLE),
            (None, Some(now)) => check_allocation(now, object, &path, errors),
            _ => {}
        }
    }
}

fn check_reservations(object: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let reserved = object.list_at(&["status", "reservedFor"]);
    bounded(reserved, MAX_RESERVATIONS, path, errors, |consumer, path, errors| {
        for field in ["resource", "name", "uid"] {
            if consumer.text_at(&[field]).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
    });
    if reserved.len() <= MAX_RESERVATIONS {
        unique(reserved, path, errors, |consumer| consumer.text_at(&["uid"]).to_owned());
    }
    if reserved.is_empty() {
        return;
    }
    let before = old.list_at(&["status", "reservedFor"]);
    if object.at(&["status", "allocation"]).is_none() {
        errors.forbidden(path, "may not be specified when `allocated` is not set");
    } else if object.at(&["metadata", "deletionTimestamp"]).is_some() && !reserved.iter().all(|c| before.contains(c)) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(path, detail);
    }
}

/// The device of a pool of a driver.
fn check_device_ref(entry: &Value, path: &Path<'_>, errors: &mut Errors) {
    csi_driver_name(entry.text_at(&["driver"]), &path.child("driver"), errors);
    check_pool_name(entry.text_at(&["pool"]), &path.child("pool"), errors);
    let device = entry.text_at(&["device"]);
    names::invalid_each(errors, &path.child("device"), device, names::dns_label(device));
    if let Some(share) = entry.at(&["shareID"]).and_then(Value::as_str) {
        check_uid(share, &path.child("shareID"), errors);
    }
}

fn check_uid(uid: &str, path: &Path<'_>, errors: &mut Errors) {
    let dashes = [8, 13, 18, 23];
    let normal = uid.len() == 36
        && uid.bytes().enumerate().all(|(i, b)| {
            if dashes.contains(&i) { b == b'-' } else { b.is_ascii_digit() || (b'a'..=b'f').contains(&b) }
        });
    if normal {
        return;
    }
    match uid.len() {
        36 | 38 | 41 | 32 => errors.invalid(
            path,
            uid,
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal \
             characters",
        ),
        length => errors.invalid(path, uid, format!("error validating uid: invalid UUID length: {length}")),
    }
}

fn check_allocation(allocation: &Value, claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    let requests = claim.list_at(&["spec", "devices", "requests"]);
    let devices = path.child("devices");
    let results = allocation.list_at(&["devices", "results"]);
    bounded(results, MAX_RESULTS, &devices.child("results"), errors, |result, path, errors| {
        check_request_ref(result.text_at(&["request"]), requests, &path.child("request"), errors);
        check_device_ref(result, path, errors);
        check_binding(result, path, errors);
    });
    let configs = allocation.list_at(&["devices", "config"]);
    bounded(configs, 2 * MAX_CONFIGS, &devices.child("config"), errors, |config, path, errors| {
        match config.text_at(&["source"]) {
            "" => errors.required(&path.child("source"), ""),
            "FromClaim" | "FromClass" => {}
            source => errors.not_supported(&path.child("source"), source, &["FromClaim", "FromClass"]),
        }
        check_request_refs(config, requests, path, errors);
        check_config(config, path, errors);
    });
    if let Some(selector) = allocation.at(&["nodeSelector"]) {
        pod_parts::node_selector(errors, &path.child("nodeSelector"), selector);
    }
}

fn check_device_status(device: &Value, given: &[String], path: &Path<'_>, errors: &mut Errors) {
    check_device_ref(device, path, errors);
    let id = device_id(device);
    if !given.contains(&id) {
        errors.invalid(path, Raw(id), "must be an allocated device in the claim");
    }
    let conditions = device.list_at(&["conditions"]);
    if conditions.len() > MAX_DEVICE_CONDITIONS {
        errors.too_many(&path.child("conditions"), conditions.len(), MAX_DEVICE_CONDITIONS);
    }
    meta::conditions(errors, &path.child("conditions"), conditions);
    if let Some(data) = device.at(&["data"]) {
        check_raw(Some(data), &path.child("data"), errors);
    }
    let Some(network) = device.at(&["networkData"]) else { return };
    let path = path.child("networkData");
    for (field, max) in [("interfaceName", MAX_INTERFACE_NAME), ("hardwareAddress", MAX_HARDWARE_ADDRESS)] {
        if network.text_at(&[field]).len() > max {
            errors.too_long(&path.child(field), max);
        }
    }
    let ips = network.list_at(&["ips"]);
    let list = path.child("ips");
    bounded(ips, MAX_IPS, &list, errors, |ip, path, errors| {
        let text = ip.as_str().unwrap_or_default();
        match names::parse_cidr(text).map(|net| net.to_string()) {
            None => {
                errors.invalid(path, text, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")
            }
            Some(canonical) if canonical != text => {
                let canonical = crate::field::go_quote(&canonical);
                errors.invalid(path, text, format!("must be in canonical form ({canonical})"));
            }
            Some(_) => {}
        }
    });
    if ips.len() <= MAX_IPS {
        unique(ips, &list, errors, text_of);
    }
}

pub struct ResourceClaimTemplate;

impl Kind for ResourceClaimTemplate {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "ResourceClaimTemplate"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.at_mut(&["spec", "spec"]) {
            default_claim(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let metadata = spec.child("metadata");
        if let Some(labels) = object.at(&["spec", "metadata", "labels"]) {
            meta::labels(errors, &metadata.child("labels"), labels);
        }
        if let Some(annotations) = object.at(&["spec", "metadata", "annotations"]) {
            meta::annotations(errors, &metadata.child("annotations"), annotations);
        }
        check_claim(&object["spec"]["spec"], &spec.child("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        if object.at(&["spec"]) != old.at(&["spec"]) {
            errors.invalid(&Path::new("spec"), shown_template(object), meta::FIELD_IMMUTABLE);
        }
    }
}

/// The metadata of a template is embedded in its Go struct, so its fields stand beside the spec.
fn shown_template(object: &Value) -> Raw {
    let spec = go_shape::by_value(object.at(&["spec", "spec"]), CLAIM_SPEC).0;
    let metadata = go_shape::versioned(object.at(&["spec", "metadata"]), "ObjectMeta").0;
    match metadata.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(fields) if !fields.is_empty() => Raw(format!("{{{fields},\"Spec\":{spec}}}")),
        _ => Raw(format!("{{\"Spec\":{spec}}}")),
    }
}

pub struct DeviceClass;

impl Kind for DeviceClass {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "DeviceClass"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Own
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        meta::long_name(errors, object);
        let spec = Path::new("spec");
        check_selectors(object.list_at(&["spec", "selectors"]), &spec.child("selectors"), errors);
        bounded(object.list_at(&["spec", "config"]), MAX_CONFIGS, &spec.child("config"), errors, check_config);
        let name = object.at(&["spec", "extendedResourceName"]).and_then(Value::as_str);
        if let Some(name) = name.filter(|name| !quantity::is_extended(name)) {
            errors.invalid(&spec.child("extendedResourceName"), name, "must be a valid extended resource name");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &Errors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn claim() -> Value {
        json!({"spec": {"devices": {
            "requests": [
                {"name": "a", "exactly": {"deviceClassName": "gpu"}},
                {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu"}]},
            ],
            "constraints": [{"requests": ["a", "b/x"], "matchAttribute": "gpu.example.com/numa"}],
        }}})
    }

    #[test]
    fn a_claim_refers_to_its_own_requests() {
        let mut object = claim();
        ResourceClaim.default(&mut object);
        assert_eq!(object["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
        let mut errors = Errors::default();
        ResourceClaim.validate(&object, &mut errors);
        assert_eq!(texts(&errors), Vec::<String>::new());
        object["spec"]["devices"]["constraints"][0] = json!({"requests": ["b/y"], "matchAttribute": "numa"});
        ResourceClaim.validate(&object, &mut errors);
        assert_eq!(errors.0.len(), 2);
    }

    #[test]
    fn what_is_given_is_an_answer_to_a_request_and_stays() {
        let mut old = claim();
        ResourceClaim.default(&mut old);
        let mut new = old.clone();
        let result = json!({"request": "b/x", "driver": "d.example.com", "pool": "p", "device": "one"});
        new["status"] = json!({"allocation": {"devices": {"results": [result]}}, "devices": [result]});
        let mut errors = Errors::default();
        ResourceClaim.validate_status_update(&new, &old, &mut errors);
        assert_eq!(texts(&errors), Vec::<String>::new());
        let mut freed = new.clone();
        freed["status"]["allocation"] = Value::Null;
        ResourceClaim.prepare_status_update(&mut freed, &new);
        assert_eq!(freed["status"]["devices"], json!([]));
        new["status"]["devices"][0]["device"] = json!("two");
        ResourceClaim.validate_status_update(&new, &old, &mut errors);
        assert_eq!(
            texts(&errors),
            ["status.devices[0]: Invalid value: d.example.com/p/two: must be an allocated device in the claim"]
        );
    }

    #[test]
    fn a_template_shows_its_metadata_beside_its_spec() {
        let template = json!({"spec": {"metadata": {"labels": {"x": "y"}}, "spec": {"devices": {}}}});
        assert_eq!(
            shown_template(&template).0,
            r#"{"labels":{"x":"y"},"Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}"#
        );
    }
}
