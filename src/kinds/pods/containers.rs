//! The containers of a pod: what all of them must be, and what sets apart the three lists that they stand in.

use serde_json::Value;

use super::resources::{amounts, fits_whole_pod, is_huge_pages, is_sidecar};
use super::security::check_security_context;
use super::volumes::{Volumes, descending_path, local_path};
use super::{Latitude, probes};
use crate::field::{ErrorKind, Errors, Path};
use crate::kinds::endpoints::PROTOCOLS;
use crate::kinds::{names, quantity};
use crate::object::Fields;
use crate::quantity::Quantity;

/// What the checks of a container need of its pod.
pub struct Pod<'p> {
    pub spec: &'p Value,
    pub volumes: Volumes<'p>,
    pub latitude: &'p Latitude,
}

impl Pod<'_> {
    fn claims(&self) -> Vec<&str> {
        let claims = self.spec.list_at(&["resourceClaims"]).iter().map(|claim| claim.text_at(&["name"]));
        let mut names: Vec<&str> = claims.filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub fn grace_period(&self) -> Option<i64> {
        self.spec.int_at(&["terminationGracePeriodSeconds"])
    }
}

/// One error for each text that a form wants otherwise; none where it is empty and may be.
fn form(errors: &mut Errors, path: &Path<'_>, text: &str, check: names::Check) {
    names::invalid_each(errors, path, text, check(text));
}

fn duplicate_name(seen: &mut Vec<String>, name: &str, path: &Path<'_>, errors: &mut Errors) {
    if seen.iter().any(|other| other == name) {
        errors.duplicate(&path.child("name"), name);
    } else {
        seen.push(name.to_owned());
    }
}

pub fn check_containers(pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let containers = pod.spec.list_at(&["containers"]);
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        check_common(container, pod, &at, errors);
        duplicate_name(&mut seen, container.text_at(&["name"]), &at, errors);
        probes::check_running(container, pod, &at, errors);
        check_restart_policy(container, &at, errors);
    }
    host_port_conflicts(containers, path, errors);
}

pub fn check_init_containers(pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let others = pod.spec.list_at(&["containers"]);
    let mut seen: Vec<String> = others.iter().map(|container| container.text_at(&["name"]).to_owned()).collect();
    for (i, container) in pod.spec.list_at(&["initContainers"]).iter().enumerate() {
        let at = path.index(i);
        check_common(container, pod, &at, errors);
        check_restart_policy(container, &at, errors);
        let name = container.text_at(&["name"]);
        if !name.is_empty() || seen.iter().any(String::is_empty) {
            duplicate_name(&mut seen, name, &at, errors);
        }
        // They run one after another, so a port may be used again.
        host_port_conflicts(std::slice::from_ref(container), path, errors);
        if is_sidecar(container) {
            probes::check_running(container, pod, &at, errors);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.at(&[field]).is_some() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.forbidden(&at.child(field), detail);
                }
            }
        }
    }
}

/// What an ephemeral container can't have: it is a visitor on which the pod must not rely.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
const NOT_EPHEMERAL_DETAIL: &str = "cannot be set for an Ephemeral Container";

pub fn check_ephemeral_containers(pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let lasting = ["containers", "initContainers"].iter().flat_map(|list| pod.spec.list_at(&[list]));
    let lasting: Vec<String> = lasting.map(|container| container.text_at(&["name"]).to_owned()).collect();
    let mut seen = lasting.clone();
    for (i, container) in pod.spec.list_at(&["ephemeralContainers"]).iter().enumerate() {
        let at = path.index(i);
        check_common(container, pod, &at, errors);
        check_image_padding(container, &at, errors);
        duplicate_name(&mut seen, container.text_at(&["name"]), &at, errors);
        let target = container.text_at(&["targetContainerName"]);
        if !target.is_empty() && !lasting.iter().any(|name| name == target) {
            errors.not_found(&at.child("targetContainerName"), target);
        }
        for field in NOT_EPHEMERAL {
            let set = match container.at(&[field]) {
                Some(Value::Object(map)) if *field == "resources" => !map.is_empty(),
                other => other.is_some(),
            };
            if set {
                errors.forbidden(&at.child(field), NOT_EPHEMERAL_DETAIL);
            }
        }
        let mounts = at.child("volumeMounts");
        for (j, mount) in container.list_at(&["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.text_at(&[field]).is_empty() {
                    let at = mounts.index(j);
                    errors.forbidden(&at.child(field), NOT_EPHEMERAL_DETAIL);
                }
            }
        }
    }
}

/// A pod's images, unlike a template's, are names without space around them.
pub fn check_image_padding(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let image = container.text_at(&["image"]);
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn check_common(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let text = |field: &str| container.text_at(&[field]);
    match text("name") {
        "" => errors.required(&path.child("name"), ""),
        name => form(errors, &path.child("name"), name, names::dns_label),
    }
    if text("image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    let policy = path.child("terminationMessagePolicy");
    match text("terminationMessagePolicy") {
        "File" | "FallbackToLogsOnError" => {}
        "" => errors.required(&policy, ""),
        other => errors.not_supported(&policy, other, &["File", "FallbackToLogsOnError"]),
    }
    check_ports(container.list_at(&["ports"]), &path.child("ports"), errors);
    check_env(container.list_at(&["env"]), pod, &path.child("env"), errors);
    check_env_from(container.list_at(&["envFrom"]), &path.child("envFrom"), errors);
    check_mounts(container, pod, &path.child("volumeMounts"), errors);
    check_devices(container, pod, &path.child("volumeDevices"), errors);
    pull_policy(text("imagePullPolicy"), &path.child("imagePullPolicy"), errors);
    check_resources(container, pod, false, &path.child("resources"), errors);
    check_resize_policy(container, pod, &path.child("resizePolicy"), errors);
    check_security_context(container, pod.spec, &path.child("securityContext"), errors);
}

pub fn pull_policy(policy: &str, path: &Path<'_>, errors: &mut Errors) {
    match policy {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => errors.required(path, ""),
        _ => errors.not_supported(path, policy, &["Always", "IfNotPresent", "Never"]),
    }
}

fn check_ports(ports: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.text_at(&["name"]);
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                names::invalid_each(errors, &at.child("name"), name, messages);
            } else if seen.contains(&name) {
                errors.duplicate(&at.child("name"), name);
            } else {
                seen.push(name);
            }
        }
        match port.int_at(&["containerPort"]).unwrap_or_default() {
            0 => errors.required(&at.child("containerPort"), ""),
            number => names::port_number(errors, &at.child("containerPort"), number),
        }
        if let Some(number) = port.int_at(&["hostPort"]).filter(|number| *number != 0) {
            names::port_number(errors, &at.child("hostPort"), number);
        }
        match port.text_at(&["protocol"]) {
            "" => errors.required(&at.child("protocol"), ""),
            protocol if !PROTOCOLS.contains(&protocol) => {
                errors.not_supported(&at.child("protocol"), protocol, PROTOCOLS);
            }
            _ => {}
        }
    }
}

fn host_port_conflicts(containers: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut taken: Vec<String> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        let list = at.child("ports");
        for (j, port) in container.list_at(&["ports"]).iter().enumerate() {
            let number = port.int_at(&["hostPort"]).unwrap_or_default();
            let key = format!("{}/{}/{number}", port.text_at(&["protocol"]), port.text_at(&["hostIP"]));
            if number == 0 {
                continue;
            }
            if taken.contains(&key) {
                let at = list.index(j);
                errors.duplicate(&at.child("hostPort"), key.as_str());
            } else {
                taken.push(key);
            }
        }
    }
}

/// What a variable may show of its pod.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The name of a variable: anything that can be printed, but no equals sign.
fn variable_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b) || b == b'=') {
        let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        messages.push(detail.to_owned());
    }
    messages
}

fn check_env(variables: &[Value], pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        match variable.text_at(&["name"]) {
            "" => errors.required(&at.child("name"), ""),
            name => form(errors, &at.child("name"), name, variable_name),
        }
        if let Some(source) = variable.at(&["valueFrom"]) {
            check_value_from(source, variable.text_at(&["value"]), pod, &at.child("valueFrom"), errors);
        }
    }
}

fn check_value_from(source: &Value, value: &str, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut found = 0;
    let mut each = |field: &'static str| {
        let reference = source.at(&[field]);
        found += usize::from(reference.is_some());
        reference
    };
    if let Some(reference) = each("fieldRef") {
        field_ref(reference, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = each("resourceFieldRef") {
        resource_ref(reference, false, &path.child("resourceFieldRef"), errors);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = each(field) {
            let at = path.child(field);
            form(errors, &at.child("name"), reference.text_at(&["name"]), names::dns_subdomain);
            match reference.text_at(&["key"]) {
                "" => errors.required(&at.child("key"), ""),
                key => form(errors, &at.child("key"), key, names::config_map_key),
            }
        }
    }
    if let Some(reference) = each("fileKeyRef") {
        file_key_ref(reference, pod, &path.child("fileKeyRef"), errors);
    }
    if found == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if !value.is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if found > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn file_key_ref(reference: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    match reference.text_at(&["volumeName"]) {
        "" => errors.required(&path.child("volumeName"), ""),
        name => match pod.volumes.get(name) {
            None => errors.not_found(&path.child("volumeName"), name),
            Some(volume) if volume.at(&["emptyDir"]).is_none() => {
                errors.invalid(&path.child("volumeName"), name, "referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        },
    }
    match reference.text_at(&["path"]) {
        "" => errors.required(&path.child("path"), ""),
        text => local_path(&path.child("path"), text, errors),
    }
    match reference.text_at(&["key"]) {
        "" => errors.required(&path.child("key"), ""),
        key => form(errors, &path.child("key"), key, variable_name),
    }
}

/// The fields of a pod that its containers can be told, and the old names of some.
fn downward_field(version: &str, label: &str) -> Result<String, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    if let Some((path, _)) = subscripted(label) {
        return match path {
            "metadata.annotations" | "metadata.labels" => Ok(label.to_owned()),
            _ => Err(format!("field label does not support subscript: {label}")),
        };
    }
    match label {
        "metadata.annotations" | "metadata.labels" | "spec.restartPolicy" | "spec.schedulerName" | "status.phase" => {
            Ok(label.to_owned())
        }
        "spec.host" => Ok("spec.nodeName".to_owned()),
        _ if ENV_FIELDS.contains(&label) => Ok(label.to_owned()),
        _ => Err(format!("field label not supported: {label}")),
    }
}

/// `path['key']`, taken apart.
fn subscripted(label: &str) -> Option<(&str, &str)> {
    let (path, key) = label.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// A reference to a field of the pod, of which those in `known` are served.
pub fn field_ref(reference: &Value, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let version = reference.text_at(&["apiVersion"]);
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    let label = reference.text_at(&["fieldPath"]);
    let at = path.child("fieldPath");
    if label.is_empty() {
        return errors.required(&at, "");
    }
    let field = match downward_field(version, label) {
        Ok(field) => field,
        Err(why) => return errors.invalid(&at, label, format!("error converting fieldPath: {why}")),
    };
    match subscripted(&field) {
        Some(("metadata.annotations", key)) => form(errors, path, &key.to_lowercase(), names::qualified_name),
        Some((_, key)) => form(errors, path, key, names::qualified_name),
        None if !known.contains(&&*field) => errors.not_supported(&at, field.as_str(), known),
        None => {}
    }
}

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A reference to what a container may use; in a volume it must say which container.
pub fn resource_ref(reference: &Value, in_volume: bool, path: &Path<'_>, errors: &mut Errors) {
    let resource = reference.text_at(&["resource"]);
    let pages = resource.strip_prefix("limits.").or(resource.strip_prefix("requests.")).is_some_and(is_huge_pages);
    if in_volume && reference.text_at(&["containerName"]).is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !pages {
        errors.not_supported(&path.child("resource"), resource, RESOURCE_FIELDS);
    }
    let divisor = reference.text_at(&["divisor"]);
    if Quantity::parse(divisor).is_ok_and(|divisor| divisor.is_zero()) || divisor.is_empty() {
        return;
    }
    let (known, what) = match resource.split_once('.') {
        Some((_, "cpu")) => (&["1m", "1"][..], "cpu"),
        Some((_, "memory")) => (BYTE_DIVISORS, "memory"),
        Some((_, "ephemeral-storage")) => (BYTE_DIVISORS, "local ephemeral storage"),
        _ if pages => (BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !known.contains(&divisor) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid(&path.child("divisor"), resource, detail);
    }
}

fn check_env_from(sources: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = source.text_at(&["prefix"]);
        if !prefix.is_empty() {
            form(errors, &at.child("prefix"), prefix, variable_name);
        }
        let mut found = 0;
        for field in ["configMapRef", "secretRef"] {
            let Some(reference) = source.at(&[field]) else { continue };
            found += 1;
            let at = at.child(field);
            match reference.text_at(&["name"]) {
                "" => errors.required(&at.child("name"), ""),
                // The beginning of a name is checked, as where one is generated.
                name => {
                    let messages = names::dns_subdomain(&names::masked(name));
                    names::invalid_each(errors, &at.child("name"), name, messages);
                }
            }
        }
        match found {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_mounts(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let devices = container.list_at(&["volumeDevices"]);
    let mut seen: Vec<&str> = Vec::new();
    for (i, mount) in container.list_at(&["volumeMounts"]).iter().enumerate() {
        let at = path.index(i);
        let text = |field: &str| mount.text_at(&[field]);
        let (name, mount_path) = (text("name"), text("mountPath"));
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if !pod.volumes.contains_key(name) {
            errors.not_found(&at.child("name"), name);
        }
        if mount_path.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if seen.contains(&mount_path) {
            errors.invalid(&at.child("mountPath"), mount_path, "must be unique");
        }
        seen.push(mount_path);
        if devices.iter().any(|device| device.text_at(&["name"]) == name) {
            errors.invalid(&at.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.text_at(&["devicePath"]) == mount_path) {
            errors.invalid(&at.child("mountPath"), mount_path, "must not already exist as a path in volumeDevices");
        }
        // Upstream leaves the index out of these paths.
        if !text("subPath").is_empty() {
            descending_path(&path.child("subPath"), text("subPath"), errors);
        }
        if !text("subPathExpr").is_empty() {
            if !text("subPath").is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&at.child("subPathExpr"), text("subPathExpr"), detail);
            }
            descending_path(&path.child("subPathExpr"), text("subPathExpr"), errors);
        }
        check_propagation(mount, container, &path.child("mountPropagation"), errors);
        check_recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn check_propagation(mount: &Value, container: &Value, path: &Path<'_>, errors: &mut Errors) {
    const KNOWN: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = mount.at(&["mountPropagation"]).and_then(Value::as_str) else { return };
    if !KNOWN.contains(&mode) {
        errors.not_supported(path, mode, KNOWN);
    }
    if mode == "Bidirectional" && container.bool_at(&["securityContext", "privileged"]) != Some(true) {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn check_recursive_read_only(mount: &Value, path: &Path<'_>, errors: &mut Errors) {
    match mount.at(&["recursiveReadOnly"]).and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.bool_at(&["readOnly"]) != Some(true) {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(mount.text_at(&["mountPropagation"]), "" | "None") {
                errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn check_devices(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mounts = container.list_at(&["volumeMounts"]);
    let (mut names_seen, mut paths_seen): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (i, device) in container.list_at(&["volumeDevices"]).iter().enumerate() {
        let at = path.index(i);
        let (name, device_path) = (device.text_at(&["name"]), device.text_at(&["devicePath"]));
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if names_seen.contains(&name) {
            errors.invalid(&at.child("name"), name, "must be unique");
        }
        match pod.volumes.get(name) {
            None => errors.not_found(&at.child("name"), name),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().all(|kind| volume.at(&[kind]).is_none()) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&at.child("name"), name, detail);
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            errors.required(&at.child("devicePath"), "");
        }
        if paths_seen.contains(&device_path) {
            errors.invalid(&at.child("devicePath"), device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.invalid(&at.child("devicePath"), device_path, "can not contain backsteps ('..')");
        } else {
            paths_seen.push(device_path);
        }
        if mounts.iter().any(|mount| mount.text_at(&["name"]) == name) {
            errors.invalid(&at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text_at(&["mountPath"]) == device_path) {
            errors.invalid(&at.child("devicePath"), device_path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names_seen.push(name);
        }
    }
}

/// `resources` of a container, or of the pod as a whole.
pub fn check_resources(owner: &Value, pod: &Pod<'_>, whole: bool, path: &Path<'_>, errors: &mut Errors) {
    let limits = amounts(owner, "limits");
    let (mut pages, mut usual) = (false, false);
    for list in ["limits", "requests"] {
        let at = path.child(list);
        for (name, value) in owner.map_at(&["resources", list]).into_iter().flatten() {
            let key = at.key(name);
            if whole {
                whole_pod_resource_name(name, &key, errors);
            } else {
                quantity::container_resource_name(errors, &key, name);
            }
            quantity::resource_value(errors, &key, name, value);
            let amount = value.as_str().and_then(|text| Quantity::parse(text).ok());
            if let (Some(amount), "requests") = (amount, list) {
                compare_to_limit(name, amount, limits.get(name), path, errors);
            }
            if is_huge_pages(name) {
                pages = true;
                if !pod.latitude.any_huge_pages && amount.is_some_and(|amount| !divides(name, amount)) {
                    let text = value.as_str().unwrap_or_default();
                    errors.invalid(&key, text, format!("{text} is not positive integer multiple of {name}"));
                }
            }
            usual |= matches!(name.as_str(), "cpu" | "memory");
        }
    }
    if pages && !usual {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    check_claims(owner, pod, &path.child("claims"), errors);
}

fn whole_pod_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.0.len();
    quantity::resource_name(errors, path, name);
    if errors.0.len() == before && !fits_whole_pod(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

fn compare_to_limit(name: &str, amount: Quantity, limit: Option<&Quantity>, path: &Path<'_>, errors: &mut Errors) {
    let overcommitted = quantity::is_overcommitted(name);
    match limit {
        Some(limit) if amount != *limit && !overcommitted => {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.invalid(&path.child("requests"), amount.to_string(), detail);
        }
        Some(limit) if amount > *limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&path.child("requests"), amount.to_string(), detail);
        }
        None if !overcommitted => {
            errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

/// Whether an amount of huge pages is a number of whole pages.
pub fn divides(name: &str, amount: Quantity) -> bool {
    let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let size = size.map_or(0, |size| size.value());
    size > 0 && amount.milli_value() % 1000 == 0 && amount.value() % size == 0
}

fn check_claims(owner: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let known = pod.claims();
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in owner.list_at(&["resources", "claims"]).iter().enumerate() {
        let at = path.index(i);
        let name = claim.text_at(&["name"]);
        if name.is_empty() {
            errors.required(&at, "");
            continue;
        }
        if seen.iter().any(|key| key == name) {
            errors.duplicate(&at, name);
        } else {
            let request = claim.text_at(&["request"]);
            let mut key = name.to_owned();
            if !request.is_empty() {
                form(errors, &at.child("request"), request, names::dns_label);
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                errors.duplicate(&at, key.as_str());
            } else if request.is_empty() {
                for _ in seen.iter().filter(|key| key.split_once('/').is_some_and(|(claim, _)| claim == name)) {
                    errors.duplicate(&at, name);
                }
            }
            seen.push(key);
        }
        if !known.contains(&name) {
            let names = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{names}");
            errors.push(ErrorKind::NotFound, &at, name, detail);
        }
    }
}

fn check_resize_policy(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let never = pod.spec.text_at(&["restartPolicy"]) == "Never";
    let policies = container.list_at(&["resizePolicy"]);
    for (i, policy) in policies.iter().enumerate() {
        let resource = policy.text_at(&["resourceName"]);
        if policies[..i].iter().any(|other| other.text_at(&["resourceName"]) == resource) {
            errors.duplicate(&path.index(i), resource);
        }
        match resource {
            "cpu" | "memory" => {}
            "" => errors.required(path, ""),
            _ => errors.not_supported(path, resource, &["cpu", "memory"]),
        }
        let restart = policy.text_at(&["restartPolicy"]);
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.required(path, ""),
            _ => errors.not_supported(path, restart, &["NotRequired", "RestartContainer"]),
        }
        if never && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// `restartPolicy` of a container, which overrides the pod's, and the rules for single exit codes beside it.
fn check_restart_policy(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
    let rules = container.list_at(&["restartPolicyRules"]);
    match container.at(&["restartPolicy"]).and_then(Value::as_str) {
        None if !rules.is_empty() => {
            errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            errors.not_supported(&path.child("restartPolicy"), policy, POLICIES);
        }
        _ => {}
    }
    let list = path.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        errors.too_long(&list, MAX_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = list.index(i);
        let action = rule.text_at(&["action"]);
        if !matches!(action, "Restart" | "RestartAllContainers") {
            errors.not_supported(&at.child("action"), action, &["Restart", "RestartAllContainers"]);
        }
        let codes = at.child("exitCodes");
        if rule.at(&["exitCodes"]).is_none() {
            errors.required(&codes, "must be specified");
            continue;
        }
        let operator = rule.text_at(&["exitCodes", "operator"]);
        if !matches!(operator, "In" | "NotIn") {
            errors.not_supported(&codes.child("operator"), operator, &["In", "NotIn"]);
        }
        if rule.list_at(&["exitCodes", "values"]).len() > MAX_EXIT_CODES {
            errors.too_long(&codes.child("values"), MAX_EXIT_CODES);
        }
    }
}
