//! The checks that make up the levels, with upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Level, Policy};
use crate::field::go_quote;
use crate::object::Fields;

/// What a pod has that its level forbids.
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
        Some(Violation { reason: reason.into(), detail: detail.into() })
    }
}

/// A pod or a pod template under a version of the policy.
struct Subject<'p> {
    spec: &'p Value,
    annotations: &'p Value,
    version: u32,
}

/// A check of a level: since which minor version it is there, and up to which (inclusive).
struct Check {
    level: Level,
    /// Only for the baseline level: a check of the restricted one says more.
    overlap: bool,
    since: u32,
    until: u32,
    run: fn(&Subject<'_>) -> Option<Violation>,
}

const EVER: u32 = u32::MAX;

const fn baseline(since: u32, run: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check { level: Level::Baseline, overlap: false, since, until: EVER, run }
}

const fn overlapped(since: u32, run: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check { level: Level::Baseline, overlap: true, since, until: EVER, run }
}

const fn restricted(since: u32, run: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check { level: Level::Restricted, overlap: false, since, until: EVER, run }
}

/// In the order in which they are told.
static CHECKS: &[Check] = &[
    baseline(0, app_armor),
    baseline(0, host_namespaces),
    baseline(0, host_ports),
    baseline(34, probe_hosts),
    baseline(0, privileged),
    Check { until: USER_NAMESPACES - 1, ..baseline(0, proc_mount) },
    baseline(0, se_linux),
    baseline(0, sysctls),
    baseline(0, host_process),
    overlapped(0, default_capabilities),
    overlapped(0, host_paths),
    overlapped(USER_NAMESPACES, |pod| if in_user_namespace(pod) { None } else { proc_mount(pod) }),
    Check { until: 18, ..overlapped(0, seccomp_annotations) },
    overlapped(19, bad_seccomp),
    restricted(8, privilege_escalation),
    restricted(22, no_capabilities),
    restricted(USER_NAMESPACES, proc_mount),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_root),
    restricted(19, seccomp),
];

/// Since then, a pod in a user namespace of its own may be root in it.
const USER_NAMESPACES: u32 = 35;
/// Since then, pods for Windows need not say what means nothing there.
const WINDOWS: u32 = 25;

/// What of a pod or pod template violates a policy.
pub(super) fn violations(policy: Policy, pod: &Value) -> Vec<Violation> {
    if policy.level == Level::Privileged {
        return Vec::new();
    }
    let subject = Subject {
        spec: pod.at(&["spec"]).unwrap_or(&Value::Null),
        annotations: pod.at(&["metadata", "annotations"]).unwrap_or(&Value::Null),
        version: policy.version,
    };
    let belongs = |check: &&Check| {
        let level = match policy.level {
            Level::Restricted => !check.overlap,
            _ => check.level == Level::Baseline,
        };
        level && (check.since..=check.until).contains(&policy.version.min(NEWEST))
    };
    CHECKS.iter().filter(belongs).filter_map(|check| (check.run)(&subject)).collect()
}

/// The newest version that any check distinguishes.
const NEWEST: u32 = 36;

impl<'p> Subject<'p> {
    fn containers(&self) -> impl Iterator<Item = &'p Value> + use<'p> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| spec.list_at(&[list]))
    }

    fn is_windows(&self) -> bool {
        self.version >= WINDOWS && self.spec.text_at(&["os", "name"]) == "windows"
    }

    /// The names of the containers that are bad.
    fn bad(&self, is_bad: impl Fn(&'p Value) -> bool) -> Vec<&'p str> {
        self.containers().filter(|c| is_bad(c)).map(|c| c.text_at(&["name"])).collect()
    }
}

fn in_user_namespace(pod: &Subject<'_>) -> bool {
    pod.version >= USER_NAMESPACES && pod.spec.bool_at(&["hostUsers"]) == Some(false)
}

fn quoted<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    texts.into_iter().map(go_quote).collect::<Vec<_>>().join(", ")
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

fn containers_named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// Who set something: the pod, or containers, or both.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut parts = Vec::new();
    if pod {
        parts.push("pod".to_owned());
    }
    if !containers.is_empty() {
        parts.push(containers_named(containers));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn context<'c>(of: &'c Value, path: &[&str]) -> Option<&'c Value> {
    of.at(&["securityContext"])?.at(path)
}

fn app_armor(pod: &Subject<'_>) -> Option<Violation> {
    let bad = |of: &Value| {
        let kind = context(of, &["appArmorProfile"]).map(|profile| profile.text_at(&["type"]).to_owned());
        kind.filter(|kind| !matches!(kind.as_str(), "RuntimeDefault" | "Localhost"))
    };
    let own = bad(pod.spec);
    let names = pod.bad(|container| bad(container).is_some());
    let mut values: BTreeSet<String> = pod.containers().filter_map(bad).collect();
    let mut who: Vec<String> = setters(own.is_some(), &names).into_iter().collect();
    values.extend(own);
    let mut values: Vec<String> = values.into_iter().collect();
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let forbidden: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if !forbidden.is_empty() {
        who.push(plural("annotation", "annotations", forbidden.len()).to_owned());
        values.extend(forbidden);
    }
    if who.is_empty() {
        return None;
    }
    Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(values.iter().map(String::as_str))
        ),
    )
}

fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set = fields.iter().filter(|field| pod.spec.bool_at(&[field]) == Some(true));
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { Violation::new("host namespaces", set.join(", ")) }
}

fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    let of = |container: &Value| -> Vec<String> {
        let ports = container.list_at(&["ports"]).iter().filter_map(|port| port.int_at(&["hostPort"]));
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let names = pod.bad(|container| !of(container).is_empty());
    let ports: BTreeSet<String> = pod.containers().flat_map(of).collect();
    let what = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    Violation::new(what, format!("{} {uses} {what} {}", containers_named(&names), ports.join(", ")))
}

fn probe_hosts(pod: &Subject<'_>) -> Option<Violation> {
    let of = |container: &Value| -> Vec<String> {
        let handlers = [
            &["livenessProbe"][..],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let actions = handlers.iter().filter_map(|path| container.at(path));
        let hosts = actions.flat_map(|action| ["httpGet", "tcpSocket"].map(|kind| action.text_at(&[kind, "host"])));
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let names = pod.bad(|container| !of(container).is_empty());
    let hosts: BTreeSet<String> = pod.containers().flat_map(of).collect();
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let hosts = quoted(hosts.iter().map(String::as_str));
    Violation::new("probe or lifecycle host", format!("{} {uses} {what} {hosts}", containers_named(&names)))
}

fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let names = pod.bad(|container| context(container, &["privileged"]) == Some(&Value::Bool(true)));
    if names.is_empty() {
        return None;
    }
    Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers_named(&names)))
}

fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    let of = |container: &Value| {
        let kind = context(container, &["procMount"]).and_then(Value::as_str).map(str::to_owned);
        kind.filter(|kind| kind != "Default")
    };
    let names = pod.bad(|container| of(container).is_some());
    let kinds: BTreeSet<String> = pod.containers().filter_map(of).collect();
    if names.is_empty() {
        return None;
    }
    let kinds = quoted(kinds.iter().map(String::as_str));
    let detail = format!("{} must not set securityContext.procMount to {kinds}", containers_named(&names));
    Violation::new("procMount", detail)
}

fn se_linux(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || kind == "container_engine_t" && pod.version >= 31
    };
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut look = |of: &Value| {
        let Some(options) = context(of, &["seLinuxOptions"]) else { return false };
        let kind = options.text_at(&["type"]);
        let (sets_user, sets_role) = (!options.text_at(&["user"]).is_empty(), !options.text_at(&["role"]).is_empty());
        if !allowed(kind) {
            kinds.insert(kind.to_owned());
        }
        user |= sets_user;
        role |= sets_role;
        !allowed(kind) || sets_user || sets_role
    };
    let own = look(pod.spec);
    let names: Vec<&str> = pod.containers().filter(|c| look(c)).map(|c| c.text_at(&["name"])).collect();
    let who = setters(own, &names)?;
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(kinds.iter().map(String::as_str))));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Violation::new("seLinuxOptions", detail)
}

/// Parameters of the kernel that a pod may set, and since when.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Subject<'_>) -> Option<Violation> {
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(known, since)| *known == name && pod.version >= *since);
    let all = pod.spec.list_at(&["securityContext", "sysctls"]).iter().map(|sysctl| sysctl.text_at(&["name"]));
    let forbidden: Vec<&str> = all.filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { Violation::new("forbidden sysctls", forbidden.join(", ")) }
}

fn host_process(pod: &Subject<'_>) -> Option<Violation> {
    let sets = |of: &Value| context(of, &["windowsOptions", "hostProcess"]) == Some(&Value::Bool(true));
    let who = setters(sets(pod.spec), &pod.bad(sets))?;
    Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities<'c>(container: &'c Value, list: &str) -> Vec<&'c str> {
    container.list_at(&["securityContext", "capabilities", list]).iter().filter_map(Value::as_str).collect()
}

/// Who adds capabilities that aren't allowed, and which.
fn added(pod: &Subject<'_>, allowed: &[&str]) -> Option<String> {
    let bad = |container: &Value| -> Vec<String> {
        let added = capabilities(container, "add").into_iter().filter(|name| !allowed.contains(name));
        added.map(str::to_owned).collect()
    };
    let names = pod.bad(|container| !bad(container).is_empty());
    let capabilities: BTreeSet<String> = pod.containers().flat_map(bad).collect();
    let capabilities = quoted(capabilities.iter().map(String::as_str));
    let who = containers_named(&names);
    (!names.is_empty()).then(|| format!("{who} must not include {capabilities} in securityContext.capabilities.add"))
}

fn default_capabilities(pod: &Subject<'_>) -> Option<Violation> {
    Violation::new("non-default capabilities", added(pod, DEFAULT_CAPABILITIES)?)
}

fn no_capabilities(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let missing = pod.bad(|container| !capabilities(container, "drop").contains(&"ALL"));
    let mut details = Vec::new();
    if !missing.is_empty() {
        let who = containers_named(&missing);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    details.extend(added(pod, &["NET_BIND_SERVICE"]));
    if details.is_empty() { None } else { Violation::new("unrestricted capabilities", details.join("; ")) }
}

fn host_paths(pod: &Subject<'_>) -> Option<Violation> {
    let volumes = pod.spec.list_at(&["volumes"]).iter().filter(|volume| volume.at(&["hostPath"]).is_some());
    let names: Vec<&str> = volumes.map(|volume| volume.text_at(&["name"])).collect();
    if names.is_empty() {
        return None;
    }
    let what = plural("volume", "volumes", names.len());
    Violation::new("hostPath volumes", format!("{what} {}", quoted(names)))
}

const FREE_VOLUMES: &[&str] = &[
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(pod: &Subject<'_>) -> Option<Violation> {
    let kind = |volume: &Value| {
        let mut fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.clone());
        fields.find(|field| !FREE_VOLUMES.contains(&field.as_str()))
    };
    let volumes = pod.spec.list_at(&["volumes"]).iter();
    let bad: Vec<(&str, String)> =
        volumes.filter_map(|volume| Some((volume.text_at(&["name"]), kind(volume)?))).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| kind.as_str()).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|(name, _)| *name)),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    Violation::new("restricted volume types", detail)
}

fn seccomp_type(of: &Value) -> Option<&str> {
    context(of, &["seccompProfile"]).map(|profile| profile.text_at(&["type"]))
}

fn seccomp_annotations(pod: &Subject<'_>) -> Option<Violation> {
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(
        pod.containers().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", c.text_at(&["name"]))),
    );
    let forbidden: BTreeSet<String> = keys
        .filter_map(|key| Some((pod.annotations.get(&key)?.as_str()?, key)))
        .filter(|(value, _)| {
            !matches!(*value, "runtime/default" | "docker/default") && !value.starts_with("localhost/")
        })
        .map(|(value, key)| format!("{key}={}", go_quote(value)))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", forbidden.len());
    let all: Vec<String> = forbidden.into_iter().collect();
    Violation::new("seccompProfile", format!("forbidden {what} {}", all.join(", ")))
}

fn bad_seccomp(pod: &Subject<'_>) -> Option<Violation> {
    let bad = |of: &Value| seccomp_type(of).is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost"));
    let who = setters(bad(pod.spec), &pod.bad(bad))?;
    let all = std::iter::once(pod.spec).chain(pod.containers());
    let values: BTreeSet<&str> = all.filter(|of| bad(of)).filter_map(seccomp_type).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    Violation::new("seccompProfile", detail)
}

fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    if let Some(bad) = bad_seccomp(pod) {
        return Some(bad);
    }
    if seccomp_type(pod.spec).is_some() {
        return None;
    }
    let names = pod.bad(|container| seccomp_type(container).is_none());
    if names.is_empty() {
        return None;
    }
    let who = containers_named(&names);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    Violation::new("seccompProfile", detail)
}

fn privilege_escalation(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.bad(|c| context(c, &["allowPrivilegeEscalation"]) != Some(&Value::Bool(false)));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_named(&names));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

fn run_as_non_root(pod: &Subject<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if in_user_namespace(pod) {
        return None;
    }
    let says = |of: &Value| context(of, &["runAsNonRoot"]).and_then(Value::as_bool);
    if let Some(who) = setters(says(pod.spec) == Some(false), &pod.bad(|c| says(c) == Some(false))) {
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let names = if says(pod.spec) == Some(true) { Vec::new() } else { pod.bad(|c| says(c).is_none()) };
    if names.is_empty() {
        return None;
    }
    let who = containers_named(&names);
    Violation::new(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn run_as_root(pod: &Subject<'_>) -> Option<Violation> {
    if in_user_namespace(pod) {
        return None;
    }
    let root = |of: &Value| context(of, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let who = setters(root(pod.spec), &pod.bad(root))?;
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
