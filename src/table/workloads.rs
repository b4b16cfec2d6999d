//! apps, batch and autoscaling, and their forerunners in core.

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::kinds::selector;
use crate::object::Fields;
use crate::time::Time;

const TEMPLATE_SPEC: &[&str] = &["spec", "template", "spec"];
const SELECTOR: &[&str] = &["spec", "selector"];

/// `ready/desired`
fn ready(object: &Value) -> Value {
    let desired = integer(object, &["spec", "replicas"]);
    format!("{}/{desired}", integer(object, &["status", "readyReplicas"])).into()
}

pub fn pod_template(object: &Value) -> Cells {
    let [names, images] = containers(object.at(&["template", "spec"]));
    vec![name(object), names, images, labels(object, &["template", "metadata", "labels"]).into()]
}

fn replicas(object: &Value, selector: String) -> Cells {
    let [names, images] = containers(object.at(TEMPLATE_SPEC));
    vec![
        name(object),
        number(object, &["spec", "replicas"]),
        number(object, &["status", "replicas"]),
        number(object, &["status", "readyReplicas"]),
        age(object),
        names,
        images,
        selector.into(),
    ]
}

pub fn replication_controller(object: &Value) -> Cells {
    replicas(object, labels(object, SELECTOR))
}

pub fn replica_set(object: &Value) -> Cells {
    replicas(object, label_selector(object, SELECTOR))
}

pub fn deployment(object: &Value) -> Cells {
    let [names, images] = containers(object.at(TEMPLATE_SPEC));
    vec![
        name(object),
        ready(object),
        number(object, &["status", "updatedReplicas"]),
        number(object, &["status", "availableReplicas"]),
        age(object),
        names,
        images,
        selector::text(object.at(SELECTOR)).into(),
    ]
}

pub fn stateful_set(object: &Value) -> Cells {
    let [names, images] = containers(object.at(TEMPLATE_SPEC));
    vec![name(object), ready(object), age(object), names, images]
}

pub fn daemon_set(object: &Value) -> Cells {
    let [names, images] = containers(object.at(TEMPLATE_SPEC));
    vec![
        name(object),
        number(object, &["status", "desiredNumberScheduled"]),
        number(object, &["status", "currentNumberScheduled"]),
        number(object, &["status", "numberReady"]),
        number(object, &["status", "updatedNumberScheduled"]),
        number(object, &["status", "numberAvailable"]),
        labels(object, &["spec", "template", "spec", "nodeSelector"]).into(),
        age(object),
        names,
        images,
        label_selector(object, SELECTOR).into(),
    ]
}

pub fn scale(object: &Value) -> Cells {
    let replicas = |of| number(object, &[of, "replicas"]);
    vec![name(object), replicas("spec"), replicas("status"), age(object)]
}

pub fn controller_revision(object: &Value) -> Cells {
    let mut owners = object.list_at(&["metadata", "ownerReferences"]).iter();
    let controller = match owners.find(|owner| owner.bool_at(&["controller"]) == Some(true)) {
        Some(owner) => {
            let kind = owner.text_at(&["kind"]).to_lowercase();
            let kind = match owner.text_at(&["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{}", group.to_lowercase()),
                None => kind,
            };
            format!("{kind}/{}", owner.text_at(&["name"]))
        }
        None => NONE.to_owned(),
    };
    vec![name(object), controller.into(), number(object, &["revision"]), age(object)]
}

pub fn job(object: &Value) -> Cells {
    let succeeded = integer(object, &["status", "succeeded"]);
    let completions = match (object.int_at(&["spec", "completions"]), integer(object, &["spec", "parallelism"])) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = match time(object, &["status", "startTime"]) {
        Some(start) => between(start, time(object, &["status", "completionTime"]).unwrap_or_else(Time::now)),
        None => String::new(),
    };
    let status = match () {
        () if condition_is_true(object, "Complete") => "Complete",
        () if condition_is_true(object, "Failed") => "Failed",
        () if is_deleted(object) => "Terminating",
        () if condition_is_true(object, "Suspended") => "Suspended",
        () if condition_is_true(object, "FailureTarget") => "FailureTarget",
        () => "Running",
    };
    let [names, images] = containers(object.at(TEMPLATE_SPEC));
    vec![
        name(object),
        status.into(),
        completions.into(),
        duration.into(),
        age(object),
        names,
        images,
        label_selector(object, SELECTOR).into(),
    ]
}

pub fn cron_job(object: &Value) -> Cells {
    let last = match object.at(&["status", "lastScheduleTime"]) {
        Some(_) => since(object, &["status", "lastScheduleTime"]),
        None => NONE.to_owned(),
    };
    let suspend = match object.bool_at(&["spec", "suspend"]) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let [names, images] = containers(object.at(&["spec", "jobTemplate", "spec", "template", "spec"]));
    vec![
        name(object),
        text(object, &["spec", "schedule"]),
        shown(object.at(&["spec", "timeZone"]), NONE).into(),
        suspend.into(),
        count(object, &["status", "active"]),
        last.into(),
        age(object),
        names,
        images,
        label_selector(object, &["spec", "jobTemplate", "spec", "selector"]).into(),
    ]
}

pub fn horizontal_pod_autoscaler(object: &Value) -> Cells {
    let target = |field| object.text_at(&["spec", "scaleTargetRef", field]);
    vec![
        name(object),
        format!("{}/{}", target("kind"), target("name")).into(),
        metrics(object).into(),
        shown(object.at(&["spec", "minReplicas"]), UNSET).into(),
        number(object, &["spec", "maxReplicas"]),
        number(object, &["status", "currentReplicas"]),
        age(object),
    ]
}

fn metrics(object: &Value) -> String {
    let current = object.list_at(&["status", "currentMetrics"]);
    let specs = object.list_at(&["spec", "metrics"]);
    let metrics: Vec<String> = specs.iter().enumerate().map(|(index, spec)| metric(spec, current.get(index))).collect();
    or(&first_of(2, &metrics, ", "), NONE).to_owned()
}

/// `current/target` of one metric.
fn metric(spec: &Value, status: Option<&Value>) -> String {
    let source = match spec.text_at(&["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let target = |field| spec.at(&[source, "target", field]);
    // What a status that is there leaves out is zero where it isn't told apart from nothing.
    let status = status.and_then(|status| status.at(&[source]));
    let current =
        |field, zero: &str| status.map_or_else(|| UNKNOWN.to_owned(), |s| shown(s.at(&["current", field]), zero));
    let average = target("averageValue");
    match source {
        "pods" => format!("{}/{}", current("averageValue", "0"), shown(average, "0")),
        "external" | "object" => match average {
            Some(average) => format!("{}/{} (avg)", current("averageValue", UNKNOWN), shown(Some(average), "0")),
            None => format!("{}/{}", current("value", "0"), shown(target("value"), "0")),
        },
        _ => {
            let name = spec.text_at(&[source, "name"]);
            match (average, target("averageUtilization")) {
                (Some(average), _) => format!("{name}: {}/{}", current("averageValue", "0"), shown(Some(average), "0")),
                (None, wanted) => {
                    let percent = |value: Option<&Value>, none: &str| {
                        value.and_then(Value::as_i64).map_or_else(|| none.to_owned(), |share| format!("{share}%"))
                    };
                    let now = status.and_then(|status| status.at(&["current", "averageUtilization"]));
                    format!("{name}: {}/{}", percent(now, UNKNOWN), percent(wanted, "<auto>"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metrics_show_what_is_and_what_should_be() {
        let object = json!({
            "spec": { "metrics": [
                { "type": "Resource", "resource": { "name": "cpu", "target": { "averageUtilization": 80 } } },
                { "type": "Object", "object": { "target": { "averageValue": "5" } } },
                { "type": "Pods", "pods": { "target": { "averageValue": "1k" } } },
            ] },
            "status": { "currentMetrics": [
                { "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 40 } } },
                { "type": "Object", "object": { "current": { "value": "3" } } },
            ] },
        });
        assert_eq!(metrics(&object), "cpu: 40%/80%, <unknown>/5 (avg) + 1 more...");
        assert_eq!(metrics(&json!({})), "<none>");
    }
}
