//! Defaults of pods and of the templates that pods are made from.

use serde_json::{Value, json};

use super::image;
use super::resources::{default_amounts, default_pod_resources, default_resources};
use crate::kinds::persistent::default_claim_spec;
use crate::kinds::volume_sources::default_sources;
use crate::object::Fields;

/// Where init containers stood before they had a field.
const OLD_INIT_ANNOTATIONS: &[&str] = &[
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// The files of a volume are readable by all (octal 644).
const FILE_MODE: i64 = 0o644;

/// A pod template, as workloads carry it: `{metadata, spec}`.
pub fn default_template(template: &mut Value) {
    drop_old_annotations(template);
    template.make_map(&["spec"]);
    if let Some(spec) = template.at_mut(&["spec"]) {
        default_pod_spec(spec);
    }
}

/// A pod itself has a few more defaults than a template.
pub fn default_pod(pod: &mut Value) {
    default_template(pod);
    if let Some(spec) = pod.at_mut(&["spec"]) {
        default_pod_resources(spec);
        spec.set_default("enableServiceLinks", true);
        if spec.bool_at(&["hostNetwork"]) == Some(true) {
            for list in ["containers", "initContainers"] {
                spec.items_mut(&[list]).for_each(default_host_ports);
            }
        }
    }
    default_status(pod);
}

fn drop_old_annotations(owner: &mut Value) {
    for name in OLD_INIT_ANNOTATIONS {
        owner.take_at(&["metadata", "annotations", name]);
    }
}

fn default_text(owner: &mut Value, field: &str, value: &str) {
    if owner.text_at(&[field]).is_empty() {
        owner.set(&[field], value);
    }
}

fn default_number(owner: &mut Value, field: &str, value: i64) {
    if owner.int_at(&[field]).unwrap_or_default() == 0 {
        owner.set(&[field], value);
    }
}

/// The spec of a pod, wherever it stands.
pub fn default_pod_spec(spec: &mut Value) {
    mirror_account(spec);
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    spec.set_default("securityContext", json!({}));
    spec.set_default("terminationGracePeriodSeconds", 30);
    spec.items_mut(&["volumes"]).for_each(default_volume);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        spec.items_mut(&[list]).for_each(default_container);
    }
    default_resources(spec);
    default_amounts(spec, "overhead");
}

/// `serviceAccount` is the old name of `serviceAccountName`, and always shows the same.
pub fn mirror_account(spec: &mut Value) {
    let name = match spec.text_at(&["serviceAccountName"]) {
        "" => spec.text_at(&["serviceAccount"]),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec.set(&["serviceAccountName"], name.clone());
        spec.set(&["serviceAccount"], name);
    }
}

fn default_container(container: &mut Value) {
    for port in container.items_mut(&["ports"]) {
        default_text(port, "protocol", "TCP");
    }
    for variable in container.items_mut(&["env"]) {
        if let Some(source) = variable.at_mut(&["valueFrom"]) {
            default_field_ref(source);
            if let Some(key) = source.at_mut(&["fileKeyRef"]) {
                key.set_default("optional", false);
            }
        }
    }
    default_resources(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.at_mut(&[probe]).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.at_mut(&["lifecycle", hook]) {
            default_http_get(hook);
        }
    }
    if container.text_at(&["imagePullPolicy"]).is_empty() {
        let policy = image::pull_policy(container.text_at(&["image"]));
        container.set(&["imagePullPolicy"], policy);
    }
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
}

fn default_field_ref(source: &mut Value) {
    if let Some(reference) = source.at_mut(&["fieldRef"]).filter(|reference| reference.is_object()) {
        default_text(reference, "apiVersion", "v1");
    }
}

fn default_probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default_number(probe, field, value);
    }
    default_http_get(probe);
    if let Some(grpc) = probe.at_mut(&["grpc"]) {
        grpc.set_default("service", "");
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(action) = handler.at_mut(&["httpGet"]).filter(|action| action.is_object()) {
        default_text(action, "path", "/");
        default_text(action, "scheme", "HTTP");
    }
}

/// On the host's network, every port of a container is one of the host.
fn default_host_ports(container: &mut Value) {
    for port in container.items_mut(&["ports"]) {
        let number = port.int_at(&["containerPort"]).unwrap_or_default();
        default_number(port, "hostPort", number);
    }
}

fn default_volume(volume: &mut Value) {
    let empty =
        |volume: &Value| volume.as_object().is_some_and(|map| map.iter().all(|(k, v)| k == "name" || v.is_null()));
    if empty(volume) {
        volume.set(&["emptyDir"], json!({}));
    }
    default_sources(volume);
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.at_mut(&[source]) {
            source.set_default("defaultMode", FILE_MODE);
        }
    }
    volume.items_mut(&["downwardAPI", "items"]).for_each(default_field_ref);
    for source in volume.items_mut(&["projected", "sources"]) {
        source.items_mut(&["downwardAPI", "items"]).for_each(default_field_ref);
        if let Some(token) = source.at_mut(&["serviceAccountToken"]) {
            token.set_default("expirationSeconds", 3600);
        }
    }
    if let Some(claim) = volume.at_mut(&["ephemeral", "volumeClaimTemplate", "spec"]).filter(|spec| spec.is_object()) {
        default_claim_spec(claim);
        default_resources(claim);
    }
    if let Some(image) = volume.at_mut(&["image"]).filter(|image| image.is_object())
        && image.text_at(&["pullPolicy"]).is_empty()
    {
        let policy = image::pull_policy(image.text_at(&["reference"]));
        image.set(&["pullPolicy"], policy);
    }
}

/// `podIP` is the old name of the first of `podIPs`, and wins over a list that does not begin with it.
fn default_status(pod: &mut Value) {
    let Some(status) = pod.at_mut(&["status"]).filter(|status| status.is_object()) else { return };
    let first = status.list_at(&["podIPs"]).first().map(|ip| ip.text_at(&["ip"]).to_owned());
    match (status.text_at(&["podIP"]).to_owned(), first) {
        (ip, first) if !ip.is_empty() && first.as_ref() != Some(&ip) => status.set(&["podIPs"], json!([{ "ip": ip }])),
        (ip, Some(first)) if ip.is_empty() => status.set(&["podIP"], first),
        _ => {}
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in status.items_mut(&[list]) {
            default_resources(container);
            default_amounts(container, "allocatedResources");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_says_less_than_a_pod() {
        let mut template = json!({
            "metadata": {"annotations": {"pod.beta.kubernetes.io/init-containers": "x", "a": "b"}},
            "spec": {
                "serviceAccount": "sa",
                "hostNetwork": true,
                "containers": [{"image": "a", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {}}}],
                "volumes": [{"name": "v"}],
            },
        });
        let mut pod = template.clone();
        default_template(&mut template);
        default_pod(&mut pod);
        assert_eq!(template["metadata"]["annotations"], json!({"a": "b"}));
        let spec = &template["spec"];
        assert_eq!(spec["serviceAccountName"], "sa");
        assert_eq!(spec["containers"][0]["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
        assert_eq!(spec["containers"][0]["livenessProbe"]["httpGet"], json!({"path": "/", "scheme": "HTTP"}));
        assert_eq!(spec["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        assert_eq!(spec.at(&["enableServiceLinks"]), None);
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    }

    #[test]
    fn the_single_address_wins() {
        let mut pod = json!({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}});
        default_pod(&mut pod);
        assert_eq!(pod["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
        let mut pod = json!({"status": {"podIPs": [{"ip": "10.0.0.2"}]}});
        default_pod(&mut pod);
        assert_eq!(pod["status"]["podIP"], "10.0.0.2");
    }
}
