//! Pods: the state of all containers in three cells.

use serde_json::{Value, json};

use super::Cells;
use super::cells::{NONE, age, condition_is_true, elapsed, integer, is_deleted, name, or, text_or, time};
use crate::object::Fields;
use crate::time::Time;

/// What the status column says, and the counts beside it.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: Restarts,
}

#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += integer(status, &["restartCount"]);
        self.last = self.last.max(time(status, &["lastState", "terminated", "finishedAt"]));
    }

    fn shown(&self) -> String {
        match self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, elapsed(last)),
            _ => self.count.to_string(),
        }
    }
}

pub fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod.text_at(&["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]))
}

pub fn pod(pod: &Value) -> Cells {
    let sidecars = pod.list_at(&["spec", "initContainers"]).iter().filter(|container| is_sidecar(container)).count();
    let total = pod.list_at(&["spec", "containers"]).len() + sidecars;
    let summary = summary(pod);
    let ip = pod.list_at(&["status", "podIPs"]).first().map_or("", |ip| ip.text_at(&["ip"]));
    vec![
        name(pod),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        summary.restarts.shown().into(),
        age(pod),
        or(ip, NONE).into(),
        text_or(pod, &["spec", "nodeName"], NONE),
        text_or(pod, &["status", "nominatedNodeName"], NONE),
        readiness_gates(pod).into(),
    ]
}

/// An init container that goes on beside the others.
fn is_sidecar(container: &Value) -> bool {
    container.text_at(&["restartPolicy"]) == "Always"
}

fn summary(pod: &Value) -> Summary {
    let mut summary = Summary::default();
    let phase = pod.text_at(&["status", "phase"]);
    let status_reason = pod.text_at(&["status", "reason"]);
    summary.reason = or(status_reason, phase).to_owned();
    let gated = |condition: &Value| {
        condition.text_at(&["type"]) == "PodScheduled" && condition.text_at(&["reason"]) == "SchedulingGated"
    };
    if pod.list_at(&["status", "conditions"]).iter().any(gated) {
        summary.reason = "SchedulingGated".to_owned();
    }
    let (done, sidecars) = init_containers(pod, &mut summary);
    if done || condition_is_true(pod, "Initialized") {
        summary.restarts = sidecars;
        containers(pod, &mut summary);
    }
    if is_deleted(pod) {
        if status_reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn sidecar_named(pod: &Value, name: &str) -> bool {
    let mut containers = pod.list_at(&["spec", "initContainers"]).iter();
    containers.any(|container| container.text_at(&["name"]) == name && is_sidecar(container))
}

/// Goes through the init containers up to the one at work, which the reason then tells of. Whether all are done, and how
/// often the sidecars among them were restarted.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, Restarts) {
    let mut sidecars = Restarts::default();
    for (index, status) in pod.list_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        summary.restarts.add(status);
        let sidecar = sidecar_named(pod, status.text_at(&["name"]));
        if sidecar {
            sidecars.add(status);
        }
        let terminated = status.at(&["state", "terminated"]);
        if terminated.is_some_and(|terminated| integer(terminated, &["exitCode"]) == 0) {
            continue;
        }
        if sidecar && status.bool_at(&["started"]) == Some(true) {
            summary.ready += usize::from(status.bool_at(&["ready"]) == Some(true));
            continue;
        }
        let waiting = status.text_at(&["state", "waiting", "reason"]);
        let why = match terminated {
            Some(terminated) => end(terminated),
            None if !matches!(waiting, "" | "PodInitializing") => waiting.to_owned(),
            None => format!("{index}/{}", pod.list_at(&["spec", "initContainers"]).len()),
        };
        summary.reason = format!("Init:{why}");
        return (false, sidecars);
    }
    (true, sidecars)
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in pod.list_at(&["status", "containerStatuses"]).iter().rev() {
        summary.restarts.add(status);
        let waiting = status.text_at(&["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = status.at(&["state", "terminated"]) {
            summary.reason = end(terminated);
        } else if status.bool_at(&["ready"]) == Some(true) && status.at(&["state", "running"]).is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    // Of a pod of which some containers are done, those that go on are told of.
    if summary.reason == "Completed" && running {
        let reason = if condition_is_true(pod, "Ready") { "Running" } else { "NotReady" };
        summary.reason = reason.to_owned();
    }
}

/// Why a container ended.
fn end(terminated: &Value) -> String {
    match (terminated.text_at(&["reason"]), integer(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| condition_is_true(pod, gate.text_at(&["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: Value, status: Value) -> [String; 3] {
        let cells = pod(&json!({ "metadata": { "name": "p" }, "spec": spec, "status": status }));
        [1, 2, 3].map(|index| cells[index].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({
            "containers": [{ "name": "c" }],
            "initContainers": [{ "name": "s", "restartPolicy": "Always" }, { "name": "i" }],
        });
        let sidecar =
            json!({ "name": "s", "restartCount": 2, "ready": true, "started": true, "state": { "running": {} } });
        let starting = json!({
            "phase": "Pending",
            "initContainerStatuses": [sidecar, { "name": "i", "restartCount": 1, "state": { "running": {} } }],
        });
        assert_eq!(shown(spec.clone(), starting), ["1/2", "Init:1/2", "3"]);
        let running = json!({
            "phase": "Running",
            "initContainerStatuses": [
                sidecar, { "name": "i", "restartCount": 1, "state": { "terminated": { "exitCode": 0 } } },
            ],
            "containerStatuses": [{ "name": "c", "restartCount": 4, "ready": true, "state": { "running": {} } }],
        });
        assert_eq!(shown(spec, running), ["2/2", "Running", "6"]);
    }

    #[test]
    fn a_pod_whose_helper_is_done_still_runs() {
        let status = json!({
            "phase": "Running",
            "containerStatuses": [
                { "name": "a", "ready": false, "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } },
                { "name": "b", "ready": true, "state": { "running": {} } },
            ],
        });
        assert_eq!(shown(json!({ "containers": [{}, {}] }), status), ["1/2", "NotReady", "0"]);
    }
}
