//! Under whose rights a pod and its containers run.

use serde_json::{Value, json};

use super::Latitude;
use super::shapes::{PROFILE, SECURITY_CONTEXT};
use super::volumes::descending_path;
use crate::field::{Errors, Path, go_quote};
use crate::kinds::{go_shape, names};
use crate::object::Fields;

/// A user or group.
pub fn check_id(errors: &mut Errors, path: &Path<'_>, id: i64) {
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        errors.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}

fn check_ids(context: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for field in fields {
        if let Some(id) = context.int_at(&[field]) {
            check_id(errors, &path.child(field), id);
        }
    }
}

fn one_of(context: &Value, field: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if let Some(text) = context.at(&[field]).and_then(Value::as_str)
        && !known.contains(&text)
    {
        errors.not_supported(&path.child(field), text, known);
    }
}

pub fn check_security_context(container: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = container.at(&["securityContext"]) else { return };
    check_ids(context, &["runAsUser", "runAsGroup"], path, errors);
    one_of(context, "procMount", &["Default", "Unmasked"], path, errors);
    let host_users = spec.bool_at(&["hostUsers"]).unwrap_or(true);
    if host_users && context.text_at(&["procMount"]) == "Unmasked" {
        errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    check_profile(context, "seccompProfile", "seccomp", path, errors);
    if context.bool_at(&["allowPrivilegeEscalation"]) == Some(false) {
        let shown = || go_shape::pointer(Some(context), SECURITY_CONTEXT);
        if context.bool_at(&["privileged"]) == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, shown(), detail);
        }
        for _ in context.list_at(&["capabilities", "add"]).iter().filter(|name| *name == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, shown(), detail);
        }
    }
    check_windows_options(context, path, errors);
    check_profile(context, "appArmorProfile", "AppArmor", path, errors);
}

/// The security context of a pod as a whole.
pub fn check_pod_security_context(
    spec: &Value,
    spec_path: &Path<'_>,
    path: &Path<'_>,
    latitude: &Latitude,
    errors: &mut Errors,
) {
    let Some(context) = spec.at(&["securityContext"]) else { return };
    check_ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    let groups = path.child("supplementalGroups");
    for (i, group) in context.list_at(&["supplementalGroups"]).iter().enumerate() {
        check_id(errors, &groups.index(i), group.as_i64().unwrap_or_default());
    }
    if spec.bool_at(&["shareProcessNamespace"]) == Some(true) && spec.bool_at(&["hostPID"]) == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    check_sysctls(spec, &path.child("sysctls"), latitude, errors);
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    check_profile(context, "seccompProfile", "seccomp", path, errors);
    check_windows_options(context, path, errors);
    check_profile(context, "appArmorProfile", "AppArmor", path, errors);
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    let policies: &[&str] = if latitude.any_selinux_policy { &["MountOption", "Recursive"] } else { &["Recursive"] };
    one_of(context, "seLinuxChangePolicy", policies, path, errors);
    check_host_process(spec, spec_path, errors);
}

const MAX_PROFILE: usize = 4095;

/// A seccomp or AppArmor profile: a type, and for one type the name of a file on the node.
fn check_profile(context: &Value, field: &str, what: &str, parent: &Path<'_>, errors: &mut Errors) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    let Some(profile) = context.at(&[field]) else { return };
    let path = parent.child(field);
    let local = profile.at(&["localhostProfile"]).and_then(Value::as_str);
    let at = path.child("localhostProfile");
    let kind = profile.text_at(&["type"]);
    if kind.is_empty() {
        errors.required(&path.child("type"), format!("type is required when {field} is set"));
    } else if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    let only = format!("can only be set when {what} type is Localhost");
    let needed = format!("must be set when {what} type is Localhost");
    match (what, kind, local) {
        (_, "Localhost", None) => errors.required(&at, needed),
        ("seccomp", "Localhost", Some(local)) => descending_path(&at, local, errors),
        ("seccomp", _, Some(_)) => errors.invalid(&at, go_shape::pointer(Some(profile), PROFILE), only),
        (_, "Localhost", Some(local)) => {
            if local.trim() != local {
                errors.invalid(&at, local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&at, needed);
            }
            if local.len() > MAX_PROFILE {
                errors.too_long(&at, MAX_PROFILE);
            }
        }
        (_, "RuntimeDefault" | "Unconfined", Some(local)) => errors.invalid(&at, local, only),
        _ => {}
    }
}

const MAX_SYSCTL: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|b| word(*b))
            && bytes.last().is_some_and(|b| word(*b))
            && bytes.iter().all(|b| word(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

/// The namespace of the kernel that a sysctl belongs to, where it has one.
fn namespace_of(sysctl: &str) -> &'static str {
    let name = sysctl.replace('/', ".");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if name == "kernel.sem" || ipc.iter().any(|prefix| name.starts_with(prefix)) {
        "ipc"
    } else if name.starts_with("net.") {
        "net"
    } else {
        ""
    }
}

fn check_sysctls(spec: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let sysctls = spec.list_at(&["securityContext", "sysctls"]);
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i);
        let at = at.child("name");
        let name = sysctl.text_at(&["name"]);
        if name.is_empty() {
            errors.required(&at, "");
        } else if !is_sysctl(name) {
            let detail = format!("must have at most {MAX_SYSCTL} characters and match regex {SYSCTL}");
            errors.invalid(&at, name, detail);
        } else if sysctls[..i].iter().any(|other| other.text_at(&["name"]) == name) {
            errors.duplicate(&at, name);
        }
        if let Some(field) = host_sysctl(spec, name).filter(|_| !latitude.any_host_sysctls) {
            errors.invalid(&at, name, format!("may not be specified when '{field}' is true"));
        }
    }
}

/// Which namespace of the host a sysctl would change.
pub fn host_sysctl(spec: &Value, name: &str) -> Option<&'static str> {
    let shared = |field: &'static str| spec.bool_at(&[field]) == Some(true);
    match namespace_of(name) {
        "net" if shared("hostNetwork") => Some("hostNetwork"),
        "ipc" if shared("hostIPC") => Some("hostIPC"),
        _ => None,
    }
}

const MAX_GMSA_SPEC: usize = 64 * 1024;
const MAX_USER_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

fn check_windows_options(context: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let Some(options) = context.at(&["windowsOptions"]) else { return };
    let path = parent.child("windowsOptions");
    let text = |field: &str| options.at(&[field]).and_then(Value::as_str);
    if let Some(name) = text("gmsaCredentialSpecName") {
        names::invalid_each(errors, &path.child("gmsaCredentialSpecName"), name, names::dns_subdomain(name));
    }
    if let Some(spec) = text("gmsaCredentialSpec") {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > MAX_GMSA_SPEC {
            errors.invalid(&at, spec, format!("gmsaCredentialSpec size must be under {} KiB", MAX_GMSA_SPEC / 1024));
        }
    }
    if let Some(name) = text("runAsUserName") {
        let at = path.child("runAsUserName");
        names::invalid_each(errors, &at, name, user_name_messages(name));
    }
}

fn user_name_messages(name: &str) -> Vec<String> {
    let say = |message: &str| vec![format!("runAsUserName{message}")];
    if name.is_empty() {
        return say(" cannot be an empty string");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return say(" cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return say(" cannot contain more than one backslash"),
    };
    let mut messages = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= MAX_USER_DOMAIN {
            messages.extend(say(&format!("'s Domain length must be under {MAX_USER_DOMAIN} characters")));
        }
        if !is_netbios(domain) && !is_windows_domain(domain) {
            messages.extend(say("'s Domain doesn't match the NetBios nor the DNS format"));
        }
    }
    if user.is_empty() {
        messages.extend(say("'s User cannot be empty"));
    } else if user.len() > MAX_USER {
        messages.extend(say(&format!("'s User length must not be longer than {MAX_USER} characters")));
    }
    if !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')) {
        messages.extend(say("'s User cannot contain only periods or spaces"));
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        messages.extend(say("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"));
    }
    messages
}

fn is_netbios(domain: &str) -> bool {
    let fits = !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
    fits && (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.')
}

fn is_windows_domain(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.split('.').all(label)
}

/// Containers that are processes of a Windows host: all of them or none.
fn check_host_process(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let flag = ["securityContext", "windowsOptions", "hostProcess"];
    let pod = spec.bool_at(&flag);
    let (mut all, mut on_host) = (0, 0);
    for (list, i, container) in containers(spec) {
        all += 1;
        let own = container.bool_at(&flag);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let list = path.child(list);
            let at = list.index(i);
            let at = at.child("securityContext");
            let at = at.child("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&at.child("hostProcess"), own, detail);
        }
        on_host += usize::from(own.or(pod) == Some(true));
    }
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", detail);
    }
    if spec.bool_at(&["hostNetwork"]) != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, detail);
    }
}

/// All containers of a pod with the list that they stand in, in the order in which upstream visits them.
pub fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.list_at(&[list]).iter().enumerate().map(move |(i, container)| (list, i, container)))
}

/// What only one operating system has, by where it stands: in the pod's security context, in the spec, or in a
/// container's security context.
const NOT_ON_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const SPEC_NOT_ON_WINDOWS: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const CONTAINER_NOT_ON_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `os` of a pod, and what it excludes.
pub fn check_os(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.at(&["os"]).is_none() {
        return;
    }
    let os = path.child("os");
    let (own, in_spec, in_container, detail): (&[&str], &[&str], &[&str], _) = match spec.text_at(&["os", "name"]) {
        "" => return errors.required(&os.child("name"), "cannot be empty"),
        "linux" => {
            let options = &["windowsOptions"];
            (options, &[], options, "windows options cannot be set for a linux pod")
        }
        "windows" => {
            let detail = "cannot be set for a windows pod";
            (NOT_ON_WINDOWS, SPEC_NOT_ON_WINDOWS, CONTAINER_NOT_ON_WINDOWS, detail)
        }
        other => return errors.not_supported(&os, other, &["linux", "windows"]),
    };
    let context = path.child("securityContext");
    for field in own.iter().filter(|field| spec.at(&["securityContext", field]).is_some()) {
        errors.forbidden(&context.child(field), detail);
    }
    for field in in_spec.iter().filter(|field| spec.at(&[field]).is_some()) {
        errors.forbidden(&path.child(field), detail);
    }
    for (list, i, container) in containers(spec) {
        let list = path.child(list);
        let at = list.index(i);
        let context = at.child("securityContext");
        for field in in_container.iter().filter(|field| container.at(&["securityContext", field]).is_some()) {
            errors.forbidden(&context.child(field), detail);
        }
    }
}

/// Profiles that once stood in annotations: seccomp's and AppArmor's, which must say the same as the fields.
pub fn check_profile_annotations(annotations: &Value, spec: &Value, spec_path: &Path<'_>, errors: &mut Errors) {
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    let mut compare = |annotation: &str, profile: &Value, what: &str, at: &Path<'_>| {
        let local = annotation.strip_prefix("localhost/");
        let same_type = match profile.text_at(&["type"]) {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default" || what == "seccomp" && annotation == "docker/default",
            "Localhost" => local.is_some(),
            _ => true,
        };
        if !same_type {
            errors.forbidden(&at.child("type"), format!("{what} type in annotation and field must match"));
        } else if profile.text_at(&["type"]) == "Localhost"
            && profile.at(&["localhostProfile"]).and_then(Value::as_str) != local
        {
            let detail = format!("{what} profile in annotation and field must match");
            errors.forbidden(&at.child("localhostProfile"), detail);
        }
    };
    let pod_context = spec_path.child("securityContext");
    if let (Some(profile), Some(annotation)) = (spec.at(&["securityContext", "seccompProfile"]), text(SECCOMP_POD)) {
        compare(annotation, profile, "seccomp", &pod_context.child("seccompProfile"));
    }
    let windows = spec.text_at(&["os", "name"]) == "windows";
    for (list, i, container) in containers(spec) {
        let list = spec_path.child(list);
        let at = list.index(i);
        let context = at.child("securityContext");
        let name = container.text_at(&["name"]);
        let own = |field: &str| container.at(&["securityContext", field]);
        if let (Some(profile), Some(annotation)) = (own("seccompProfile"), text(&format!("{SECCOMP_CONTAINER}{name}")))
        {
            compare(annotation, profile, "seccomp", &context.child("seccompProfile"));
        }
        let profile = own("appArmorProfile").or_else(|| spec.at(&["securityContext", "appArmorProfile"]));
        if let (Some(profile), Some(annotation), false) = (profile, text(&format!("{APP_ARMOR}{name}")), windows) {
            compare(annotation, profile, "apparmor", &context.child("appArmorProfile"));
        }
    }
}

pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The profile that an AppArmor annotation stands for.
pub fn app_armor_field(annotation: &str) -> Option<Value> {
    match annotation.split_once('/') {
        None if annotation == "unconfined" => Some(json!({ "type": "Unconfined" })),
        Some(("runtime", "default")) => Some(json!({ "type": "RuntimeDefault" })),
        Some(("localhost", name)) if !name.is_empty() && name.trim() == name && name.len() <= MAX_PROFILE => {
            Some(json!({ "type": "Localhost", "localhostProfile": name }))
        }
        _ => None,
    }
}

/// Annotations of seccomp and AppArmor on their own.
pub fn check_security_annotations(annotations: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            let at = path.child(key);
            match text {
                "runtime/default" | "docker/default" | "unconfined" => {}
                _ => match text.strip_prefix("localhost/") {
                    Some(file) => descending_path(&at, file, errors),
                    None => errors.invalid(&at, text, "must be a valid seccomp profile"),
                },
            }
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let at = path.key(key);
            if !containers(spec).any(|(_, _, container)| container.text_at(&["name"]) == name) {
                errors.invalid(&at, name, "container not found");
            }
            let known = matches!(text, "" | "runtime/default" | "unconfined") || text.starts_with("localhost/");
            if !known {
                errors.invalid(&at, text, format!("invalid AppArmor profile name: {}", go_quote(text)));
            }
        }
    }
}
