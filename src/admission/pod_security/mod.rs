//! PodSecurity: namespaces say by labels how restricted their pods are. What violates the enforced level is refused,
//! what violates the level to warn of is told. The audited level waits for the audit log.

mod checks;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use kontiki_storage::View;
use serde::Deserialize;
use serde_json::Value;

use super::{Admission, Operation, Plugin, unchanged};
use crate::field::{Errors, Path};
use crate::object::Fields;
use crate::status::{ApiError, Result};
use checks::violations;

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate: unchanged, validate };

/// Resources with a pod template, and where it is.
const TEMPLATES: &[(&str, &[&str])] = &[
    ("replicationcontrollers", &["spec", "template"]),
    ("podtemplates", &["template"]),
    ("replicasets.apps", &["spec", "template"]),
    ("deployments.apps", &["spec", "template"]),
    ("statefulsets.apps", &["spec", "template"]),
    ("daemonsets.apps", &["spec", "template"]),
    ("jobs.batch", &["spec", "template"]),
    ("cronjobs.batch", &["spec", "jobTemplate", "spec", "template"]),
];

fn handles(admission: &Admission<'_>) -> bool {
    let subresource = admission.request.info.subresource.as_str();
    let table = admission.table();
    admission.operation != Operation::Delete
        && match table {
            "pods" => matches!(subresource, "" | "ephemeralcontainers" | "resize"),
            "namespaces" => subresource.is_empty(),
            _ => subresource.is_empty() && TEMPLATES.iter().any(|(name, _)| *name == table),
        }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

const LEVELS: &[(&str, Level)] =
    &[("privileged", Level::Privileged), ("baseline", Level::Baseline), ("restricted", Level::Restricted)];

/// A level as it was defined in a version of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    level: Level,
    /// The minor version; the newest where it is the latest.
    version: u32,
}

const LATEST: u32 = u32::MAX;

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = LEVELS.iter().find(|(_, level)| *level == self.level).map_or("", |(name, _)| name);
        match self.version {
            LATEST => write!(f, "{name}:latest"),
            minor => write!(f, "{name}:v1.{minor}"),
        }
    }
}

const PREFIX: &str = "pod-security.kubernetes.io/";

fn parse_level(text: &str) -> Option<Level> {
    LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
}

fn parse_version(text: &str) -> Option<u32> {
    if text == "latest" {
        return Some(LATEST);
    }
    let minor = text.strip_prefix("v1.")?;
    let canonical = minor == "0" || !minor.starts_with('0');
    minor.parse().ok().filter(|_| canonical && minor.bytes().all(|b| b.is_ascii_digit()))
}

/// The policy of one mode, and whether its level is given. What can't be read is enforced as the strictest.
fn policy<'l>(label: impl Fn(&str) -> Option<&'l str>, mode: &str) -> (Policy, bool) {
    let strict = mode == "enforce";
    let given = label(&format!("{PREFIX}{mode}"));
    let unreadable = if strict { Level::Restricted } else { Level::Privileged };
    let level = given.map_or(Level::Privileged, |text| parse_level(text).unwrap_or(unreadable));
    let version = label(&format!("{PREFIX}{mode}-version")).and_then(parse_version).unwrap_or(LATEST);
    (Policy { level, version }, given.is_some())
}

/// What is enforced in a namespace and what is warned of; where it says nothing about warnings, the same.
fn policies<'l>(label: impl Fn(&str) -> Option<&'l str> + Copy) -> (Policy, Policy) {
    let (enforce, _) = policy(label, "enforce");
    let (warn, given) = policy(label, "warn");
    (enforce, if given { warn } else { enforce })
}

fn validate(admission: &mut Admission<'_>, object: &Value) -> Result<()> {
    match admission.table() {
        "namespaces" => check_namespace(admission, object),
        "pods" => {
            if admission.old.is_some_and(|old| !is_significant(object, old)) {
                return Ok(());
            }
            let (enforce, warn) = of_namespace(admission.view, admission.request.namespace())?;
            let found = violations(enforce, object);
            if !found.is_empty() {
                let why = format!("violates PodSecurity \"{enforce}\": {}", details(&found));
                return Err(admission.forbidden(object, why));
            }
            warn_of(admission, warn, object);
            Ok(())
        }
        table => {
            let path = TEMPLATES.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, path)| path);
            let Some(template) = object.at(path) else { return Ok(()) };
            let (_, warn) = of_namespace(admission.view, admission.request.namespace())?;
            warn_of(admission, warn, template);
            Ok(())
        }
    }
}

fn warn_of(admission: &mut Admission<'_>, warn: Policy, pod: &Value) {
    let found = violations(warn, pod);
    if !found.is_empty() {
        admission.warnings.push(format!("would violate PodSecurity \"{warn}\": {}", details(&found)));
    }
}

fn details(found: &[checks::Violation]) -> String {
    let parts: Vec<String> = found.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    parts.join(", ")
}

fn of_namespace(view: &View, name: &str) -> Result<(Policy, Policy)> {
    #[derive(Deserialize)]
    struct Namespace<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        labels: HashMap<Cow<'a, str>, Cow<'a, str>>,
    }
    let record = view.get(&format!("namespaces/{name}"));
    let record = record.ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
    let found: Namespace<'_> = serde_json::from_slice(&record.value)
        .map_err(|e| ApiError::internal(format!("the stored {}: {e}", record.key)))?;
    let labels = found.metadata.labels;
    Ok(policies(|key| labels.get(key).map(|value| &**value)))
}

/// Whether an update of a pod changes what the policies look at: its images and containers.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<(String, String)> {
        let containers = pod.list_at(&["spec", list]).iter();
        containers.map(|c| (c.text_at(&["name"]).to_owned(), c.text_at(&["image"]).to_owned())).collect()
    };
    ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| images(pod, list) != images(old, list))
}

/// The labels of a namespace must be ones that can be read, but for those that could not be before.
fn check_namespace(admission: &mut Admission<'_>, namespace: &Value) -> Result<()> {
    let name = namespace.text_at(&["metadata", "name"]);
    let errors = bad_labels(namespace);
    if !errors.is_empty() && admission.old.is_none_or(|old| bad_labels(old) != errors) {
        return Err(ApiError::invalid("", "Namespace", name, &errors.0));
    }
    let Some(old) = admission.old else { return Ok(()) };
    let of = |namespace| policies(|key| label_of(namespace, key)).0;
    let (enforce, before) = (of(namespace), of(old));
    let stricter = enforce.level > before.level || enforce.version != before.version;
    if enforce != before && enforce.level != Level::Privileged && stricter {
        let found = existing(admission.view, name, enforce);
        admission.warnings.extend(found);
    }
    Ok(())
}

fn label_of<'n>(namespace: &'n Value, key: &str) -> Option<&'n str> {
    namespace.at(&["metadata", "labels", key]).and_then(Value::as_str)
}

fn bad_labels(namespace: &Value) -> Errors {
    let mut errors = Errors::default();
    let metadata = Path::new("metadata");
    let labels = metadata.child("labels");
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("{PREFIX}{mode}");
        if let Some(text) = label_of(namespace, &key).filter(|text| parse_level(text).is_none()) {
            errors.invalid(&labels.key(&key), text, "must be one of privileged, baseline, restricted");
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(text) = label_of(namespace, &key).filter(|text| parse_version(text).is_none()) {
            errors.invalid(&labels.key(&key), text, "must be \"latest\" or \"v1.x\"");
        }
    }
    errors
}

/// The most pods that are looked at when the level of a namespace rises.
const MOST_PODS: usize = 3000;

/// Warnings of the pods that are there already and would not be let in any more.
fn existing(view: &View, namespace: &str, enforce: Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let prefix = format!("pods/{namespace}/");
    let total = view.count(&prefix);
    if total > MOST_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {total} existing pods"
        ));
    }
    // The first pod by name for each set of reasons, and how many there are.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for record in view.prefix(&prefix).take(MOST_PODS) {
        let Ok(pod) = serde_json::from_slice::<Value>(&record.value) else { continue };
        let reasons: Vec<String> = violations(enforce, &pod).into_iter().map(|v| v.reason).collect();
        if !reasons.is_empty() {
            let name = pod.text_at(&["metadata", "name"]).to_owned();
            found.entry(reasons.join(", ")).or_insert((name, 0)).1 += 1;
        }
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}
