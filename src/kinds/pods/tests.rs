//! Rules of pods that the recorded scenarios say little of.

use serde_json::{Value, json};

use super::pod::Pod;
use super::subresources::{
    bind, grace_period, prepare_ephemeral_update, prepare_resize, validate_ephemeral_update, validate_resize,
};
use super::{template_warnings, validate_template};
use crate::field::{Errors, Path};
use crate::kinds::Kind;
use crate::object::Fields;

/// A pod with one container, changed by `patch` and as it is stored.
fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]},
    });
    change(&mut pod);
    Pod.default(&mut pod);
    Pod.prepare_create(&mut pod);
    pod
}

fn said(check: impl FnOnce(&mut Errors)) -> Vec<String> {
    let mut errors = Errors::default();
    check(&mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

/// What is wrong with a pod whose spec has these fields too.
fn wrong(more: Value) -> Vec<String> {
    let pod = pod(|pod| {
        if let (Value::Object(spec), Value::Object(more)) = (&mut pod["spec"], more) {
            spec.extend(more);
        }
    });
    said(|errors| Pod.validate(&pod, errors))
}

/// What is wrong with a pod whose container has these fields too.
fn wrong_container(more: Value) -> Vec<String> {
    let mut container = json!({"name": "c", "image": "i"});
    if let (Value::Object(container), Value::Object(more)) = (&mut container, more) {
        container.extend(more);
    }
    wrong(json!({ "containers": [container] }))
}

#[test]
fn mistakes_are_told_as_upstream_tells_them() {
    let cases: &[(Value, &[&str])] = &[
        (json!({}), &[]),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}, "nfs": {}}]}),
            &[
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.volumes[0].nfs: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]}),
            &["spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"],
        ),
        (
            json!({"hostNetwork": true, "hostUsers": false}),
            &["spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"],
        ),
        (
            json!({"os": {"name": "windows"}, "securityContext": {"runAsUser": 1}}),
            &["spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"],
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]}),
            &["spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without \
               restartPolicy=Always"],
        ),
        (
            json!({"schedulingGates": [{"name": "example.com/g"}], "nodeName": "n1"}),
            &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}, "hostNetwork": true}),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when \
               'hostNetwork' is true",
            ],
        ),
        (
            json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"},
                {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"},
            ]}),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \
                 \"{z, DoNotSchedule}\"",
            ],
        ),
        (
            json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}, "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}},
            ]}),
            &["spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate \
               container requests of 2"],
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(wrong(more.clone()), *expected, "{more}");
    }
}

#[test]
fn mistakes_in_containers_are_told_as_upstream_tells_them() {
    let cases: &[(Value, &[&str])] = &[
        (
            json!({"env": [{"name": "A=B"}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            &[
                "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must \
                 consist only of printable ASCII characters other than '='",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting \
                 fieldPath: field label not supported: spec.x",
            ],
        ),
        (
            json!({"resources": {"requests": {"hugepages-2Mi": "3Mi"}, "limits": {"cpu": "1"}}}),
            &[
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable \
                 resources",
                "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive \
                 integer multiple of hugepages-2Mi",
            ],
        ),
        (
            json!({"restartPolicyRules": [{"action": "Stop", "exitCodes": {"operator": "In", "values": [1]}}]}),
            &[
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are \
                 used",
                "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \
                 \"Restart\", \"RestartAllContainers\"",
            ],
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost"}, "procMount": "Unmasked"}}),
            &[
                "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false \
                 to use `Unmasked`",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when \
                 seccomp type is Localhost",
            ],
        ),
        (
            json!({"resources": {"claims": [{"name": "gpu"}]}}),
            &["spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in \
               pod.spec.resourceClaims which is empty"],
        ),
        (
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
            &["spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
               terminationGracePeriodSeconds (30)"],
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(wrong_container(more.clone()), *expected, "{more}");
    }
}

#[test]
fn what_was_accepted_once_still_is() {
    let template = |value: &str| {
        let mut template = pod(|pod| {
            let expression = json!({"key": "a", "operator": "In", "values": [value]});
            let required = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
            let node = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
            pod["spec"]["affinity"] = json!({ "nodeAffinity": node });
        });
        template.take_at(&["status"]);
        template
    };
    let (odd, usual) = (template("no label!"), template("b"));
    let count = |new: &Value, old: Option<&Value>| {
        said(|errors| validate_template(new, old, &Path::new("template"), errors)).len()
    };
    assert_eq!((count(&odd, None), count(&odd, Some(&usual)), count(&odd, Some(&odd))), (1, 1, 0));
}

#[test]
fn warnings_are_about_what_has_no_effect() {
    let template = json!({"spec": {
        "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "volumes": [{"name": "v", "gitRepo": {}}],
        "containers": [
            {"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], "ports": [
                {"containerPort": 80, "protocol": "TCP"},
            ]},
            {"name": "d", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
        ],
    }});
    let warnings = template_warnings(&template, None, "spec.template");
    assert_eq!(
        warnings,
        [
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \
             \"kubernetes.io/os\" instead",
            "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when \
             using apply",
            "spec.template.spec.containers[1].ports[0]: duplicate port definition with \
             spec.template.spec.containers[0].ports[0]",
        ]
    );
}

#[test]
fn a_waiting_pod_may_be_narrowed_down() {
    let old = pod(|pod| {
        pod["spec"]["schedulingGates"] = json!([{"name": "example.com/g"}]);
        pod["spec"]["nodeSelector"] = json!({"a": "1"});
    });
    assert_eq!(old["status"]["conditions"][0]["reason"], "SchedulingGated");
    let mut new = old.clone();
    new["spec"]["nodeSelector"]["b"] = "2".into();
    new["spec"].take_at(&["schedulingGates"]);
    assert_eq!(said(|errors| Pod.validate_update(&new, &old, errors)), [] as [String; 0]);
    new["spec"]["nodeSelector"]["a"] = "3".into();
    let errors = said(|errors| Pod.validate_update(&new, &old, errors));
    assert_eq!(
        errors,
        [
            "spec.nodeSelector: Invalid value: {\"a\":\"3\",\"b\":\"2\"}: only additions to spec.nodeSelector are allowed \
          (no mutations or deletions)"
        ]
    );
}

#[test]
fn ephemeral_containers_come_and_stay() {
    let old = pod(|_| {});
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i", "targetContainerName": "c"}]);
    new["spec"]["containers"][0]["image"] = "other".into();
    Pod.default(&mut new);
    prepare_ephemeral_update(&mut new, &old);
    assert_eq!(new["spec"]["containers"], old["spec"]["containers"]);
    assert_eq!(said(|errors| validate_ephemeral_update(&new, &old, errors)), [] as [String; 0]);
    assert_eq!(
        said(|errors| validate_ephemeral_update(&old, &new, errors)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"]
    );
    let mut worse = new.clone();
    worse["spec"]["ephemeralContainers"][0]["ports"] = json!([{"containerPort": 1, "protocol": "TCP"}]);
    let errors = said(|errors| validate_ephemeral_update(&worse, &old, errors));
    assert_eq!(errors, ["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"]);
}

#[test]
fn a_resize_keeps_what_is_asked_for() {
    let old = pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
    let resized = |requests: Value| {
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"] = json!({ "requests": requests });
        new["spec"]["containers"][0]["image"] = "other".into();
        prepare_resize(&mut new, &old);
        said(|errors| validate_resize(&new, &old, errors))
    };
    assert_eq!(resized(json!({"cpu": "2", "memory": "2Gi"})), [] as [String; 0]);
    let removed = "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed";
    assert_eq!(resized(json!({"cpu": "2"})), [removed]);
}

#[test]
fn a_pod_is_bound_once() {
    let binding = json!({"metadata": {"annotations": {"a": "b"}, "labels": {"z": "1"}}, "target": {"name": "n1"}});
    let mut pod = pod(|_| {});
    bind(&mut pod, &binding).expect("free");
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!((&pod["metadata"]["annotations"]["a"], &pod["metadata"]["labels"]["z"]), (&json!("b"), &json!("1")));
    assert_eq!(pod["status"]["conditions"][0]["status"], "True");
    let error = bind(&mut pod, &binding).expect_err("bound");
    let message = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((error.code, &*error.message), (409, message));
}

#[test]
fn only_a_running_pod_needs_time_to_end() {
    let mut pod = pod(|_| {});
    assert_eq!(grace_period(&pod, Some(5)), 0);
    pod["spec"]["nodeName"] = "n1".into();
    assert_eq!((grace_period(&pod, None), grace_period(&pod, Some(5)), grace_period(&pod, Some(-3))), (30, 5, 1));
    pod["status"]["phase"] = "Failed".into();
    assert_eq!(grace_period(&pod, Some(5)), 0);
}

#[test]
fn a_status_keeps_what_was_observed() {
    let mut old = pod(|pod| pod["spec"]["restartPolicy"] = "Never".into());
    old["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "observedGeneration": 2}]);
    old["status"]["containerStatuses"] = json!([{"name": "c", "state": {"terminated": {"exitCode": 1}}}]);
    let mut new = old.clone();
    new["spec"]["containers"] = json!([]);
    new["status"] = json!({
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "state": {"running": {}}}],
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
    });
    Pod.prepare_status_update(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"]["qosClass"], "BestEffort");
    assert_eq!(new["status"]["conditions"][0]["observedGeneration"], 2);
    assert_eq!(
        said(|errors| Pod.validate_status_update(&new, &old, errors)),
        [
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs: Invalid value: [{\"IP\":\"10.0.0.1\"},{\"IP\":\"10.0.0.2\"}]: may specify no more than one \
             IP for each IP family",
        ]
    );
}
