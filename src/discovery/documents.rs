//! The documents in which clients read what is served: the list of groups, the resources of a version, and both for
//! everything at once (aggregated discovery).

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::{Group, Name, Registry, Resource, Subresource, Version, join};

/// `APIGroupDiscoveryList` as it goes to clients.
#[derive(Debug)]
pub struct Aggregated {
    pub json: Bytes,
    /// With its quotes.
    pub etag: String,
}

/// `/api` of clients that don't know aggregated discovery.
pub fn api_versions(registry: &Registry, server_address: &str) -> Value {
    let versions = registry.group("").map(|core| core.versions.as_slice()).unwrap_or_default();
    json!({
        "kind": "APIVersions",
        "versions": versions.iter().map(|version| &*version.name).collect::<Vec<_>>(),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis` of such clients.
pub fn api_group_list(registry: &Registry) -> Value {
    let groups = registry.groups().iter().filter(|group| !group.name.is_empty()).map(group_entry);
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
}

/// `/apis/GROUP`.
pub fn api_group(group: &Group) -> Value {
    let mut document = group_entry(group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    document
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn api_resource_list(group: &Group, version: &Version) -> Value {
    let mut resources = Vec::new();
    for resource in &version.resources {
        resources.push(resource_entry(resource));
        resources.extend(resource.subresources.iter().map(|sub| subresource_entry(resource, sub)));
    }
    let mut document = json!({
        "kind": "APIResourceList",
        "groupVersion": join(&group.name, &version.name),
        "resources": resources,
    });
    // The oldest API is older than `apiVersion` in this document.
    if !group.name.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    document
}

/// `/apis` and, with the core group alone, `/api`, in aggregated form.
pub fn api_group_discovery_list<'a>(groups: impl Iterator<Item = &'a Group>) -> Aggregated {
    let items: Vec<_> = groups.map(discovery_entry).collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let json = document.to_string();
    Aggregated { etag: format!("\"{:X}\"", Sha512::digest(&json)), json: json.into() }
}

/// `/`: the paths of the groups and these others.
pub fn root_paths<'a>(registry: &Registry, others: impl IntoIterator<Item = &'a str>) -> Value {
    let mut paths: Vec<String> = others.into_iter().map(str::to_owned).collect();
    paths.extend(["/api".to_owned(), "/apis".to_owned(), "/apis/".to_owned()]);
    for group in registry.groups() {
        let prefix = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|version| format!("{prefix}/{}", version.name)));
        paths.push(prefix);
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

/// `/version`: the version of Kubernetes that this is, with ours behind the plus sign.
pub fn version() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": crate::version::GIT,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

fn group_entry(group: &Group) -> Value {
    let entry = |version: &Version| json!({"groupVersion": join(&group.name, &version.name), "version": version.name});
    let versions: Vec<_> = group.versions.iter().map(entry).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs.names().collect::<Vec<_>>(),
    });
    list_names(&mut entry, resource);
    if let Some(hash) = resource.storage_version_hash() {
        entry["storageVersionHash"] = hash.into();
    }
    entry
}

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind.kind,
        "verbs": sub.verbs.names().collect::<Vec<_>>(),
    });
    if let Some((group, version)) = foreign(resource, sub) {
        entry["group"] = group.into();
        entry["version"] = version.into();
    }
    entry
}

fn discovery_entry(group: &Group) -> Value {
    let versions = group.versions.iter().map(|version| {
        let resources = version.resources.iter().map(|resource| {
            let mut entry = json!({
                "resource": resource.plural,
                "responseKind": {"group": "", "version": "", "kind": resource.kind},
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs.names().collect::<Vec<_>>(),
            });
            list_names(&mut entry, resource);
            if !resource.subresources.is_empty() {
                let subresources = resource.subresources.iter().map(|sub| {
                    let (group, version) = foreign(resource, sub).unwrap_or_default();
                    json!({
                        "subresource": sub.name,
                        "responseKind": {"group": group, "version": version, "kind": sub.kind.kind},
                        "verbs": sub.verbs.names().collect::<Vec<_>>(),
                    })
                });
                entry["subresources"] = subresources.collect();
            }
            entry
        });
        json!({"version": version.name, "resources": resources.collect::<Vec<_>>(), "freshness": "Current"})
    });
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".to_owned(), group.name.as_ref().into());
    }
    json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
}

fn list_names(entry: &mut Value, resource: &Resource) {
    for (field, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            entry[field] = names.iter().map(Name::as_ref).collect();
        }
    }
}

/// The group and version of a subresource's kind where they aren't the resource's.
fn foreign<'a>(resource: &Resource, sub: &'a Subresource) -> Option<(&'a str, &'a str)> {
    let kind = &sub.kind;
    (kind.group != resource.group || kind.version != resource.version).then_some((&kind.group, &kind.version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A document that kube-apiserver answered with.
    fn recorded(file: &str) -> Option<Value> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/kubernetes-1.36/discovery");
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            eprintln!("skipped: no {file} in {}", root.display());
            return None;
        };
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    #[test]
    fn the_documents_are_those_of_kube_apiserver() {
        let registry = Registry::builtin();
        let check = |file: &str, document: Value| {
            if let Some(recorded) = recorded(file) {
                assert_eq!(document, recorded, "{file}");
            }
        };
        check("api.json", api_versions(&registry, "192.0.2.2:8443"));
        check("apis.json", api_group_list(&registry));
        let read = |aggregated: &Aggregated| serde_json::from_slice(&aggregated.json).expect("JSON");
        check("aggregated-api.json", read(registry.aggregated_core()));
        check("aggregated-apis.json", read(registry.aggregated_groups()));
        for group in registry.groups() {
            for version in &group.versions {
                let file = match &*group.name {
                    "" => "api_v1.json".to_owned(),
                    name => format!("apis_{name}_{}.json", version.name),
                };
                check(&file, api_resource_list(group, version));
            }
        }
    }

    #[test]
    fn the_root_lists_every_group_version() {
        let Some(recorded) = recorded("root-paths.json") else { return };
        let ours = root_paths(&Registry::builtin(), ["/version"]);
        let paths = |document: &Value| -> Vec<String> {
            let all = document["paths"].as_array().expect("paths").iter().filter_map(Value::as_str);
            all.filter(|path| path.starts_with("/api") || *path == "/version").map(str::to_owned).collect()
        };
        assert_eq!(paths(&ours), paths(&recorded));
    }

    #[test]
    fn the_version_has_the_fields_of_kube_apiserver() {
        let Some(recorded) = recorded("version.json") else { return };
        let ours = version();
        let fields = |document: &Value| document.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&ours), fields(&recorded));
        for field in ["major", "minor", "emulationMinor", "minCompatibilityMinor", "buildDate"] {
            assert_eq!(ours[field], recorded[field]);
        }
        assert!(ours["gitVersion"].as_str().is_some_and(|text| text.starts_with("v1.36.")));
    }
}
