//! Priority: there is one default class at most, and a pod's priority is that of its class.

use kontiki_storage::View;
use serde::Deserialize;
use serde_json::Value;

use super::{Admission, Operation, Plugin};
use crate::object::Fields;
use crate::status::Result;

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate, validate };

const CLASSES: &str = "priorityclasses.scheduling.k8s.io/";
const PRIORITY: [&str; 2] = ["spec", "priority"];
const CLASS: [&str; 2] = ["spec", "priorityClassName"];
const PREEMPTION: [&str; 2] = ["spec", "preemptionPolicy"];

fn handles(admission: &Admission<'_>) -> bool {
    admission.operation != Operation::Delete
        && (admission.is_whole("pods") || admission.is_whole("priorityclasses.scheduling.k8s.io"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    metadata: Metadata,
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: bool,
    preemption_policy: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

fn default_class(view: &View) -> Option<Class> {
    let classes = view.prefix(CLASSES).filter_map(|record| serde_json::from_slice::<Class>(&record.value).ok());
    // There can be several only where they are of old; then the least counts.
    classes.filter(|class| class.global_default).min_by_key(|class| class.value)
}

fn validate(admission: &mut Admission<'_>, class: &Value) -> Result<()> {
    if admission.is_whole("pods") || class.bool_at(&["globalDefault"]) != Some(true) {
        return Ok(());
    }
    let Some(default) = default_class(admission.view) else { return Ok(()) };
    let (name, default) = (class.text_at(&["metadata", "name"]), default.metadata.name);
    if admission.operation == Operation::Create || name != default {
        let why = format!("PriorityClass {default} is already marked as default. Only one default can exist");
        return Err(admission.forbidden(class, why));
    }
    Ok(())
}

fn mutate(admission: &mut Admission<'_>, pod: &mut Value) -> Result<()> {
    if !admission.is_whole("pods") {
        return Ok(());
    }
    if let Some(old) = admission.old {
        for field in [&PRIORITY, &PREEMPTION] {
            if let (None, Some(value)) = (pod.at(field), old.at(field)) {
                pod.set(field, value.clone());
            }
        }
        return Ok(());
    }
    let name = pod.text_at(&CLASS);
    let class = if name.is_empty() {
        default_class(admission.view)
    } else {
        let record = admission.view.get(&format!("{CLASSES}{name}"));
        let class = record.and_then(|record| serde_json::from_slice(&record.value).ok());
        Some(class.ok_or_else(|| admission.forbidden(pod, format!("no PriorityClass with name {name} was found")))?)
    };
    let none = || Class {
        metadata: Metadata { name: String::new() },
        value: 0,
        global_default: false,
        preemption_policy: Some("PreemptLowerPriority".to_owned()),
    };
    let Class { metadata, value: priority, preemption_policy: policy, .. } = class.unwrap_or_else(none);
    if let Some(given) = pod.int_at(&PRIORITY).filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(admission.forbidden(pod, why));
    }
    if let Some(policy) = policy {
        let given = pod.text_at(&PREEMPTION);
        if !given.is_empty() && given != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(admission.forbidden(pod, why));
        }
        pod.set(&PREEMPTION, policy);
    }
    if !metadata.name.is_empty() {
        pod.set(&CLASS, metadata.name);
    }
    pod.set(&PRIORITY, priority);
    Ok(())
}
