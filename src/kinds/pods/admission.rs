//! What the admission plugins that know about pods change and ask for: ServiceAccount, DefaultTolerationSeconds and
//! PodTopologyLabels. They see the store only through what they are given. A refusal is a reason, which the caller
//! turns into `pods "a" is forbidden: …`.

use serde_json::{Value, json};

use super::defaults::mirror_account;
use super::security::containers;
use super::update::MIRROR;
use crate::object::Fields;

pub type Verdict = Result<(), String>;

/// How long a pod stays on a node that is gone.
const TOLERATION_SECONDS: i64 = 300;
const GONE: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// DefaultTolerationSeconds, for creation and update of a pod.
pub fn add_tolerations(pod: &mut Value) {
    let tolerated = |key: &str, toleration: &Value| {
        let (own, effect) = (toleration.text_at(&["key"]), toleration.text_at(&["effect"]));
        (own == key || own.is_empty()) && matches!(effect, "" | "NoExecute")
    };
    let mut tolerations = pod.list_at(&["spec", "tolerations"]).to_vec();
    let missing = GONE.iter().filter(|key| !tolerations.iter().any(|toleration| tolerated(key, toleration)));
    let missing: Vec<Value> = missing
        .map(|key| {
            json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            })
        })
        .collect();
    if !missing.is_empty() {
        tolerations.extend(missing);
        pod.set(&["spec", "tolerations"], tolerations);
    }
}

/// Labels of a node that its pods get too, when they are bound to it or created on it.
const TOPOLOGY_LABELS: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// PodTopologyLabels, for a binding or for a pod that is created on a node.
pub fn add_topology_labels(object: &mut Value, node: &Value) {
    for label in TOPOLOGY_LABELS {
        if let Some(value) = node.at(&["metadata", "labels", label]).cloned() {
            object.set(&["metadata", "labels", label], value);
        }
    }
}

const DEFAULT_ACCOUNT: &str = "default";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// With what the name of the volume begins that holds a pod's token.
pub const TOKEN_VOLUME: &str = "kube-api-access-";
/// An hour, and a little so that a token that is renewed each hour is never too late.
const TOKEN_SECONDS: i64 = 3607;
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Whether the kubelet made this object for a pod that it runs on its own. Such a pod is taken as it is.
pub fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR]).is_some()
}

/// The service account of a new pod, which ServiceAccount looks up.
pub fn account_name(pod: &Value) -> &str {
    match pod.text_at(&["spec", "serviceAccountName"]) {
        "" => DEFAULT_ACCOUNT,
        name => name,
    }
}

/// What ServiceAccount says where the account is not there.
pub fn account_missing(namespace: &str, name: &str) -> String {
    format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found")
}

/// ServiceAccount, for a new pod that is not a mirror. `volume` is the name for the volume of the token: [`TOKEN_VOLUME`]
/// and something random.
pub fn add_service_account(pod: &mut Value, account: &Value, volume: &str) {
    let name = account_name(pod).to_owned();
    pod.set(&["spec", "serviceAccountName"], name);
    if let Some(spec) = pod.at_mut(&["spec"]) {
        mirror_account(spec);
        let own = spec.bool_at(&["automountServiceAccountToken"]);
        if own.or(account.bool_at(&["automountServiceAccountToken"])).unwrap_or(true) {
            mount_token(spec, volume);
        }
        if spec.list_at(&["imagePullSecrets"]).is_empty()
            && let Some(secrets) = account.at(&["imagePullSecrets"])
        {
            spec.set(&["imagePullSecrets"], secrets.clone());
        }
    }
}

fn mount_token(spec: &mut Value, volume: &str) {
    let is_token =
        |volume: &&Value| volume.at(&["projected"]).is_some() && volume.text_at(&["name"]).starts_with(TOKEN_VOLUME);
    let existing = spec.list_at(&["volumes"]).iter().find(is_token).map(|volume| volume.text_at(&["name"]).to_owned());
    let name = existing.clone().unwrap_or_else(|| volume.to_owned());
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.items_mut(&[list]) {
            let mut mounts = container.list_at(&["volumeMounts"]).to_vec();
            if mounts.iter().all(|mount| mount.text_at(&["mountPath"]) != TOKEN_PATH) {
                mounts.push(json!({ "name": name, "readOnly": true, "mountPath": TOKEN_PATH }));
                container.set(&["volumeMounts"], mounts);
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        let mut volumes = spec.list_at(&["volumes"]).to_vec();
        volumes.push(token_volume(&name));
        spec.set(&["volumes"], volumes);
    }
}

/// Config maps with certificates that stand beside the token. The second is what the recorded server projects; somebody
/// must publish it in each namespace for a kubelet to find it.
const CERTIFICATES: &[(&str, &str)] = &[("kube-root-ca.crt", "ca.crt"), ("openshift-service-ca.crt", "service-ca.crt")];

fn token_volume(name: &str) -> Value {
    let certificates =
        |(map, key): &(&str, &str)| json!({"configMap": {"name": map, "items": [{"key": key, "path": key}]}});
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let mut sources = vec![json!({"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}})];
    sources.extend(CERTIFICATES.iter().map(certificates));
    sources.insert(2, json!({"downwardAPI": {"items": [namespace]}}));
    json!({"name": name, "projected": {"sources": sources, "defaultMode": 0o644}})
}

/// The last word of ServiceAccount on a new pod that is no mirror: whether its account lets it use the
/// secrets that it names.
pub fn check_service_account(pod: &Value, account: &Value) -> Verdict {
    let enforced = account.text_at(&["metadata", "annotations", ENFORCE]);
    if !matches!(enforced, "1" | "t" | "T" | "TRUE" | "true" | "True") {
        return Ok(());
    }
    let names = |list: &str| -> Vec<&str> {
        account.list_at(&[list]).iter().map(|reference| reference.text_at(&["name"])).collect()
    };
    let (secrets, pull_secrets) = (names("secrets"), names("imagePullSecrets"));
    let name = account.text_at(&["metadata", "name"]);
    let because = format!("is not allowed because service account {name} does not reference that");
    let refuse = |what: String, secret: &str| {
        if secrets.contains(&secret) { Ok(()) } else { Err(format!("{what} {because} secret")) }
    };
    for volume in pod.list_at(&["spec", "volumes"]) {
        if volume.at(&["secret"]).is_some() {
            let secret = volume.text_at(&["secret", "secretName"]);
            refuse(format!("volume with secret.secretName=\"{secret}\""), secret)?;
        }
    }
    for (list, _, container) in containers(&pod["spec"]) {
        let kind = match list {
            "initContainers" => "init container",
            "ephemeralContainers" => "ephemeral container",
            _ => "container",
        };
        let this = format!("{kind} {}", container.text_at(&["name"]));
        for variable in container.list_at(&["env"]) {
            if let Some(reference) = variable.at(&["valueFrom", "secretKeyRef"]) {
                let (variable, secret) = (variable.text_at(&["name"]), reference.text_at(&["name"]));
                let what = format!("{this} with envVar {variable} referencing secret.secretName=\"{secret}\"");
                refuse(what, secret)?;
            }
        }
        for source in container.list_at(&["envFrom"]) {
            if let Some(reference) = source.at(&["secretRef"]) {
                let secret = reference.text_at(&["name"]);
                refuse(format!("{this} with envFrom referencing secret.secretName=\"{secret}\""), secret)?;
            }
        }
    }
    for (i, reference) in pod.list_at(&["spec", "imagePullSecrets"]).iter().enumerate() {
        let secret = reference.text_at(&["name"]);
        if !pull_secrets.contains(&secret) {
            return Err(format!("imagePullSecrets[{i}].name=\"{secret}\" {because} imagePullSecret"));
        }
    }
    Ok(())
}

/// A mirror is run by its kubelet whatever the server says, so it can't use what the server hands out.
pub fn check_mirror(pod: &Value) -> Verdict {
    let refuse = |what: &str| Err(format!("a mirror pod may not {what}"));
    if !pod.text_at(&["spec", "serviceAccountName"]).is_empty() {
        return refuse("reference service accounts");
    }
    if !pod.list_at(&["spec", "imagePullSecrets"]).is_empty() || refers_to_secrets(&pod["spec"]) {
        return refuse("reference secrets");
    }
    let sources = pod.list_at(&["spec", "volumes"]).iter().flat_map(|volume| volume.list_at(&["projected", "sources"]));
    if sources.into_iter().any(|source| source.at(&["serviceAccountToken"]).is_some()) {
        return refuse("use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn refers_to_secrets(spec: &Value) -> bool {
    let volume_refers = |volume: &Value| {
        let fields = ["secretRef", "nodePublishSecretRef"];
        let sources = volume.as_object().into_iter().flatten().map(|(_, source)| source);
        volume.at(&["secret"]).is_some()
            || !volume.text_at(&["azureFile", "secretName"]).is_empty()
            || sources.into_iter().any(|source| fields.iter().any(|field| source.at(&[field]).is_some()))
            || volume.list_at(&["projected", "sources"]).iter().any(|source| source.at(&["secret"]).is_some())
    };
    let container_refers = |container: &Value| {
        container.list_at(&["envFrom"]).iter().any(|source| source.at(&["secretRef"]).is_some())
            || container.list_at(&["env"]).iter().any(|env| env.at(&["valueFrom", "secretKeyRef"]).is_some())
    };
    spec.list_at(&["volumes"]).iter().any(volume_refers)
        || containers(spec).any(|(_, _, container)| container_refers(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_its_account_and_a_token() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}],
            "containers": [{"name": "c"}],
        }});
        add_service_account(&mut pod, &json!({"imagePullSecrets": [{"name": "reg"}]}), "kube-api-access-x");
        let spec = &pod["spec"];
        assert_eq!((&spec["serviceAccount"], &spec["serviceAccountName"]), (&json!("default"), &json!("default")));
        assert_eq!(spec["volumes"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], TOKEN_PATH);
        assert_eq!(spec["initContainers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "reg"}]));
        let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
        add_service_account(&mut pod, &json!({"automountServiceAccountToken": false}), "kube-api-access-x");
        assert_eq!(pod["spec"].at(&["volumes"]), None);
    }

    #[test]
    fn nodes_that_are_gone_are_tolerated_for_a_while() {
        let mut pod = json!({"spec": {"tolerations": [{"key": GONE[0], "operator": "Exists"}]}});
        add_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let mut pod = all.clone();
        add_tolerations(&mut pod);
        assert_eq!(pod, all);
    }

    #[test]
    fn an_account_may_keep_its_pods_to_its_own_secrets() {
        let account = json!({
            "metadata": {"name": "sa", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "own"}],
        });
        let pod = |secret: &str| json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": secret}}]}});
        assert_eq!(check_service_account(&pod("own"), &account), Ok(()));
        let why = "volume with secret.secretName=\"other\" is not allowed because service account sa does not \
                   reference that secret";
        assert_eq!(check_service_account(&pod("other"), &account), Err(why.to_owned()));
    }
}
