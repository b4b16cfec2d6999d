//! HorizontalPodAutoscalers in their older version, which knows of CPU only: everything else is text in annotations.

use serde_json::{Map, Value, json};

use super::autoscaling::default_metrics;
use crate::field::Raw;
use crate::kinds::go_shape::{self, Part, Shape};
use crate::object::Fields;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const ALL: &[&str] = &[METRICS, BEHAVIOR, CURRENT, CONDITIONS];

/// A field as the annotation has it, in its order there, and where it is in the newer version. Amounts that the older
/// version always has are zero where the newer one has none.
struct Moved {
    name: &'static str,
    at: &'static [&'static str],
    always: bool,
}

const fn moved(name: &'static str, at: &'static [&'static str]) -> Moved {
    Moved { name, at, always: false }
}

const fn always(name: &'static str, at: &'static [&'static str]) -> Moved {
    Moved { name, at, always: true }
}

type Source = (&'static str, &'static [Moved]);

const SOURCES: &[Source] = &[
    (
        "object",
        &[
            moved("target", &["describedObject"]),
            moved("metricName", &["metric", "name"]),
            always("targetValue", &["target", "value"]),
            moved("selector", &["metric", "selector"]),
            moved("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            moved("metricName", &["metric", "name"]),
            always("targetAverageValue", &["target", "averageValue"]),
            moved("selector", &["metric", "selector"]),
        ],
    ),
    (
        "resource",
        &[
            moved("name", &["name"]),
            moved("targetAverageUtilization", &["target", "averageUtilization"]),
            moved("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            moved("name", &["name"]),
            moved("targetAverageUtilization", &["target", "averageUtilization"]),
            moved("targetAverageValue", &["target", "averageValue"]),
            moved("container", &["container"]),
        ],
    ),
    (
        "external",
        &[
            moved("metricName", &["metric", "name"]),
            moved("metricSelector", &["metric", "selector"]),
            moved("targetValue", &["target", "value"]),
            moved("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

const STATUSES: &[Source] = &[
    (
        "object",
        &[
            moved("target", &["describedObject"]),
            moved("metricName", &["metric", "name"]),
            always("currentValue", &["current", "value"]),
            moved("selector", &["metric", "selector"]),
            moved("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            moved("metricName", &["metric", "name"]),
            always("currentAverageValue", &["current", "averageValue"]),
            moved("selector", &["metric", "selector"]),
        ],
    ),
    (
        "resource",
        &[
            moved("name", &["name"]),
            moved("currentAverageUtilization", &["current", "averageUtilization"]),
            always("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            moved("name", &["name"]),
            moved("currentAverageUtilization", &["current", "averageUtilization"]),
            always("currentAverageValue", &["current", "averageValue"]),
            moved("container", &["container"]),
        ],
    ),
    (
        "external",
        &[
            moved("metricName", &["metric", "name"]),
            moved("metricSelector", &["metric", "selector"]),
            always("currentValue", &["current", "value"]),
            moved("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

const RULES: Shape = &[
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds", Part::Plain),
    ("SelectPolicy", "selectPolicy", Part::Plain),
    (
        "Policies",
        "policies",
        Part::List(&[
            ("Type", "type", Part::Text),
            ("Value", "value", Part::Int),
            ("PeriodSeconds", "periodSeconds", Part::Int),
        ]),
    ),
    ("Tolerance", "tolerance", Part::Plain),
];

const BEHAVIOR_SHAPE: Shape =
    &[("ScaleUp", "scaleUp", Part::Pointer(RULES)), ("ScaleDown", "scaleDown", Part::Pointer(RULES))];

const CONDITION: &[&str] = &["type", "status", "lastTransitionTime", "reason", "message"];

/// The metric that the older version has a field for.
pub fn cpu_metric(percent: i64) -> Value {
    json!({
        "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } },
    })
}

fn is_cpu(metric: &Value) -> bool {
    metric.text_at(&["type"]) == "Resource" && metric.text_at(&["resource", "name"]) == "cpu"
}

pub fn drop_annotations(object: &mut Value) {
    for name in ALL {
        object.take_at(&["metadata", "annotations", name]);
    }
}

/// An object's text with its fields in this order.
fn ordered<'f>(fields: impl Iterator<Item = (&'f str, String)>) -> String {
    let parts: Vec<String> = fields.map(|(name, text)| format!("\"{name}\":{text}")).collect();
    format!("{{{}}}", parts.join(","))
}

fn metrics_text(metrics: &[&Value], sources: &[Source]) -> String {
    let text = |value: &Value| match value {
        Value::Object(map) if map.contains_key("matchLabels") || map.contains_key("matchExpressions") => {
            go_shape::versioned(Some(value), "LabelSelector").0
        }
        Value::Object(map) => {
            let order = ["kind", "name", "apiVersion"];
            ordered(order.iter().filter_map(|name| Some((*name, map.get(*name)?.to_string()))))
        }
        other => other.to_string(),
    };
    let one = |metric: &&Value| {
        let kind = ("type", Value::from(metric.text_at(&["type"])).to_string());
        let given = sources.iter().filter_map(|(name, fields)| {
            let source = metric.at(&[name])?;
            let fields = fields.iter().filter_map(|field| match source.at(field.at) {
                Some(value) => Some((field.name, text(value))),
                None => field.always.then(|| (field.name, "\"0\"".to_owned())),
            });
            Some((*name, ordered(fields)))
        });
        ordered(std::iter::once(kind).chain(given))
    };
    format!("[{}]", metrics.iter().map(one).collect::<Vec<_>>().join(","))
}

/// What kind of target the older version means, which has no word for it.
fn target_type(source: &str, target: &Value) -> &'static str {
    let has = |field: &str| target.at(&[field]).is_some();
    match source {
        "object" if !has("averageValue") => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    }
}

fn metrics_of(text: &str, sources: &[Source]) -> Option<Vec<Value>> {
    let read: Vec<Value> = serde_json::from_str(text).ok()?;
    let one = |metric: &Value| {
        let mut made = json!({ "type": metric.text_at(&["type"]) });
        for (name, fields) in sources {
            let Some(source) = metric.at(&[name]) else { continue };
            let mut inner = json!({});
            for field in *fields {
                match source.at(&[field.name]) {
                    Some(value) => inner.set(field.at, value.clone()),
                    None if field.always => inner.set(field.at, "0"),
                    None => {}
                }
            }
            if let Some(target) = inner.at(&["target"]).filter(|target| target.is_object()) {
                let kind = target_type(name, target);
                inner.set(&["target", "type"], kind);
            }
            made.set(&[name], inner);
        }
        made
    };
    Some(read.iter().map(one).collect())
}

fn conditions_text(conditions: &[Value]) -> String {
    let one = |condition: &Value| {
        let given = |name: &&'static str| Some((*name, condition.at(&[name])?.to_string()));
        // A time is printed even where there is none.
        let null = |name: &&'static str| (*name == "lastTransitionTime").then(|| (*name, "null".to_owned()));
        ordered(CONDITION.iter().filter_map(|name| given(name).or_else(|| null(name))))
    };
    format!("[{}]", conditions.iter().map(one).collect::<Vec<_>>().join(","))
}

/// The internal names of `behavior`, in which the annotation has it, turned into those of the API.
fn behavior_of(text: &str) -> Option<Value> {
    fn lowered(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let pairs = map.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
                    let mut name = name;
                    if let Some(first) = name.get_mut(0..1) {
                        first.make_ascii_lowercase();
                    }
                    (name, lowered(value))
                });
                Value::Object(pairs.collect::<Map<_, _>>())
            }
            Value::Array(items) => items.into_iter().map(lowered).collect(),
            other => other,
        }
    }
    serde_json::from_str(text).ok().map(lowered)
}

/// Makes the older version of the newer one.
pub fn to_v1(object: &mut Value) {
    drop_annotations(object);
    let metrics: Vec<Value> = object.list_at(&["spec", "metrics"]).to_vec();
    let utilization = ["resource", "target", "averageUtilization"];
    let others: Vec<&Value> = metrics.iter().filter(|m| !(is_cpu(m) && m.at(&utilization).is_some())).collect();
    let current: Vec<Value> = object.list_at(&["status", "currentMetrics"]).to_vec();
    let mut annotations: Vec<(&str, String)> = Vec::new();
    if !others.is_empty() {
        annotations.push((METRICS, metrics_text(&others, SOURCES)));
    }
    if !current.is_empty() {
        annotations.push((CURRENT, metrics_text(&current.iter().collect::<Vec<_>>(), STATUSES)));
    }
    if let conditions @ [_, ..] = object.list_at(&["status", "conditions"]) {
        annotations.push((CONDITIONS, conditions_text(conditions)));
    }
    if let Some(behavior) = object.at(&["spec", "behavior"]) {
        let Raw(text) = go_shape::pointer(Some(behavior), BEHAVIOR_SHAPE);
        annotations.push((BEHAVIOR, text));
    }
    for (name, text) in annotations {
        object.set(&["metadata", "annotations", name], text);
    }
    if let Some(share) = metrics.iter().find(|m| is_cpu(m)).and_then(|m| m.int_at(&utilization)) {
        object.set(&["spec", "targetCPUUtilizationPercentage"], share);
    }
    let shares = current.iter().filter(|m| is_cpu(m));
    let mut shares = shares.filter_map(|m| m.int_at(&["resource", "current", "averageUtilization"]));
    if let Some(share) = shares.next_back() {
        object.set(&["status", "currentCPUUtilizationPercentage"], share);
    }
    for (part, fields) in [("spec", &["metrics", "behavior"]), ("status", &["currentMetrics", "conditions"])] {
        for field in fields {
            object.take_at(&[part, field]);
        }
    }
    // This version prints both counts even where they are zero.
    object.make_map(&["status"]);
    if let Some(status) = object.at_mut(&["status"]) {
        status.set_default("currentReplicas", 0);
        status.set_default("desiredReplicas", 0);
    }
    object.set(&["apiVersion"], "autoscaling/v1");
}

/// Makes the newer version of the older one.
pub fn to_v2(object: &mut Value) {
    let text = |name: &str| {
        let text = object.at(&["metadata", "annotations", name]).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let mut metrics: Vec<Value> = Vec::new();
    if let Some(share) = object.int_at(&["spec", "targetCPUUtilizationPercentage"]) {
        metrics.push(cpu_metric(share));
    }
    metrics.extend(text(METRICS).and_then(|text| metrics_of(&text, SOURCES)).unwrap_or_default());
    let share = object.int_at(&["status", "currentCPUUtilizationPercentage"]);
    let current = text(CURRENT).and_then(|text| metrics_of(&text, STATUSES)).or_else(|| {
        let current = json!({ "averageUtilization": share? });
        Some(vec![json!({ "type": "Resource", "resource": { "name": "cpu", "current": current } })])
    });
    let conditions = text(CONDITIONS).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let behavior = text(BEHAVIOR).and_then(|text| behavior_of(&text));
    object.take_at(&["spec", "targetCPUUtilizationPercentage"]);
    object.take_at(&["status", "currentCPUUtilizationPercentage"]);
    drop_annotations(object);
    object.set(&["spec", "metrics"], if metrics.is_empty() { default_metrics() } else { metrics.into() });
    if let Some(behavior) = behavior.filter(Value::is_object) {
        object.set(&["spec", "behavior"], behavior);
    }
    if let Some(current) = current {
        object.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = conditions.filter(Value::is_array) {
        object.set(&["status", "conditions"], conditions);
    }
    object.set(&["apiVersion"], "autoscaling/v2");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newer() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "annotations": {"k": "v"}},
            "spec": {
                "minReplicas": 2, "maxReplicas": 10,
                "metrics": [
                    cpu_metric(60),
                    {"type": "Pods", "pods": {"metric": {"name": "pps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i", "apiVersion": "n/v1"}, "metric": {"name": "rps"}, "target": {"type": "Value", "value": "2k"}}},
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
            },
            "status": {
                "desiredReplicas": 1,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "5m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": null}],
            },
        })
    }

    #[test]
    fn what_the_older_version_lacks_is_in_annotations() {
        let mut scaler = newer();
        to_v1(&mut scaler);
        assert_eq!(scaler["spec"], json!({"minReplicas": 2, "maxReplicas": 10, "targetCPUUtilizationPercentage": 60}));
        let status = json!({"currentReplicas": 0, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 40});
        assert_eq!(scaler["status"], status);
        let annotation = |name: &str| scaler["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            annotation(METRICS),
            r#"[{"type":"Pods","pods":{"metricName":"pps","targetAverageValue":"1k","selector":{"matchLabels":{"a":"b"}}}},{"type":"Object","object":{"target":{"kind":"Ingress","name":"i","apiVersion":"n/v1"},"metricName":"rps","targetValue":"2k"}}]"#
        );
        assert_eq!(
            annotation(BEHAVIOR),
            r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":null}"#
        );
        assert_eq!(annotation(CONDITIONS), r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":null}]"#);
        to_v2(&mut scaler);
        scaler.take_at(&["status", "currentReplicas"]);
        assert_eq!(scaler, newer());
    }

    #[test]
    fn an_older_one_without_a_target_aims_at_the_usual() {
        let mut scaler = json!({"apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 3}});
        to_v2(&mut scaler);
        assert_eq!(scaler["spec"]["metrics"], json!([cpu_metric(80)]));
        to_v1(&mut scaler);
        assert_eq!(scaler["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
    }
}
