//! Which resources are served: groups, versions, resources with their subresources, and how discovery tells clients.
//!
//! The built-in resources come from a generated table. Custom resources and aggregated APIs make a new [`Registry`] from
//! the groups of the old one, which is cheap, since resources are shared; who serves requests swaps it as a whole.

pub mod documents;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use base64::Engine;
use sha2::{Digest, Sha256};

pub use crate::schema::Name;
use documents::Aggregated;

/// The verbs that a resource takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verbs(u8);

impl Verbs {
    pub const CREATE: Verbs = Verbs(1);
    pub const DELETE: Verbs = Verbs(1 << 1);
    pub const DELETE_COLLECTION: Verbs = Verbs(1 << 2);
    pub const GET: Verbs = Verbs(1 << 3);
    pub const LIST: Verbs = Verbs(1 << 4);
    pub const PATCH: Verbs = Verbs(1 << 5);
    pub const UPDATE: Verbs = Verbs(1 << 6);
    pub const WATCH: Verbs = Verbs(1 << 7);
    pub const ALL: Verbs = Verbs(0xff);

    const NAMES: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

    pub const fn or(self, other: Verbs) -> Verbs {
        Verbs(self.0 | other.0)
    }

    pub const fn has(self, other: Verbs) -> bool {
        self.0 & other.0 == other.0
    }

    /// In the order of discovery, which is the alphabet's.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupVersionKind {
    /// Empty for core.
    pub group: Name,
    pub version: Name,
    pub kind: Name,
}

impl GroupVersionKind {
    /// `apiVersion`.
    pub fn api_version(&self) -> String {
        join(&self.group, &self.version)
    }
}

/// `apps/v1`; for core, the version alone.
fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Subresource {
    pub name: Name,
    /// Of the object that it takes and answers with, or of the options that a connection takes.
    pub kind: GroupVersionKind,
    pub verbs: Verbs,
}

/// A resource of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Empty for core.
    pub group: Name,
    pub version: Name,
    pub plural: Name,
    pub singular: Name,
    pub kind: Name,
    pub list_kind: Name,
    pub namespaced: bool,
    pub verbs: Verbs,
    pub short_names: Vec<Name>,
    pub categories: Vec<Name>,
    pub subresources: Vec<Subresource>,
    /// Where the objects are kept: `pods`, `deployments.apps`. All versions and groups that show the same objects have
    /// the same table.
    pub table: Name,
    /// The form in which they are kept; none for resources that are only answered (reviews, bindings).
    pub stored: Option<GroupVersionKind>,
    /// Whether DELETE answers with the object that was deleted rather than with a Status.
    pub returns_deleted: bool,
    /// The version that clients are told about in `storageVersionHash`, where it isn't the stored one.
    hashed: Option<Name>,
}

impl Resource {
    /// `apiVersion` of the objects.
    pub fn api_version(&self) -> String {
        join(&self.group, &self.version)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether objects must be converted between this version and the store.
    pub fn is_stored_version(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.group == self.group && stored.version == self.version)
    }

    /// Tells clients whether objects that they keep are still of the stored version.
    pub fn storage_version_hash(&self) -> Option<String> {
        let stored = self.stored.as_ref()?;
        let version = self.hashed.as_ref().unwrap_or(&stored.version);
        let digest = Sha256::digest(format!("{}/{version}/{}", stored.group, stored.kind));
        Some(base64::engine::general_purpose::STANDARD.encode(&digest[..8]))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub name: Name,
    /// Higher comes first in the group.
    pub priority: i32,
    /// By plural name.
    pub resources: Vec<Arc<Resource>>,
}

impl Version {
    pub fn resource(&self, plural: &str) -> Option<&Arc<Resource>> {
        let at = self.resources.binary_search_by(|resource| (*resource.plural).cmp(plural)).ok()?;
        Some(&self.resources[at])
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Empty for core.
    pub name: Name,
    /// Higher comes first among the groups.
    pub priority: i32,
    /// The preferred one first; never empty.
    pub versions: Vec<Version>,
}

impl Group {
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }
}

/// All that is served at one moment.
#[derive(Debug)]
pub struct Registry {
    groups: Vec<Group>,
    by_name: HashMap<Name, usize>,
    aggregated_core: OnceLock<Aggregated>,
    aggregated_groups: OnceLock<Aggregated>,
}

impl Registry {
    /// Puts groups, versions and resources in order. Each group may be there once; those without versions are left out.
    pub fn new(mut groups: Vec<Group>) -> Registry {
        groups.retain(|group| !group.versions.is_empty());
        groups.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
        for group in &mut groups {
            group.versions.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
            for version in &mut group.versions {
                version.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
        let by_name = groups.iter().enumerate().map(|(index, group)| (group.name.clone(), index)).collect();
        Registry { groups, by_name, aggregated_core: OnceLock::new(), aggregated_groups: OnceLock::new() }
    }

    /// What is served when nobody has added anything.
    pub fn builtin() -> Registry {
        static BUILTIN: LazyLock<Vec<Group>> = LazyLock::new(|| table::read(include_str!("resources.txt")));
        Registry::new(BUILTIN.clone())
    }

    /// In the order of discovery; core is among them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name).map(|index| &self.groups[*index])
    }

    pub fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.group(group)?.version(version)
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.version(group, version)?.resource(plural)
    }

    /// The resource whose objects are of this kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        // Bindings are a resource of their own and a subresource; reviews have no namesakes.
        self.version(group, version)?.resources.iter().find(|resource| resource.kind == kind)
    }

    /// `/api` in aggregated form.
    pub fn aggregated_core(&self) -> &Aggregated {
        self.aggregated_core.get_or_init(|| {
            documents::api_group_discovery_list(self.groups.iter().filter(|group| group.name.is_empty()))
        })
    }

    /// `/apis` in aggregated form.
    pub fn aggregated_groups(&self) -> &Aggregated {
        self.aggregated_groups.get_or_init(|| {
            documents::api_group_discovery_list(self.groups.iter().filter(|group| !group.name.is_empty()))
        })
    }

    /// Every resource of every version.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups.iter().flat_map(|group| &group.versions).flat_map(|version| &version.resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_table_is_complete() {
        let registry = Registry::builtin();
        assert_eq!(registry.groups().len(), 21);
        let pods = registry.find("", "v1", "pods").expect("pods");
        assert_eq!((&*pods.kind, &*pods.list_kind, &*pods.table, pods.namespaced), ("Pod", "PodList", "pods", true));
        assert_eq!(pods.short_names, ["po"]);
        let eviction = pods.subresource("eviction").expect("eviction");
        assert_eq!(eviction.kind.api_version(), "policy/v1");
        assert_eq!(eviction.verbs, Verbs::CREATE);
        let namespaces = registry.find("", "v1", "namespaces").expect("namespaces");
        assert!(!namespaces.verbs.has(Verbs::DELETE_COLLECTION) && namespaces.verbs.has(Verbs::WATCH));
        assert_eq!(registry.find("apps", "v1", "deployments").expect("deployments").table, "deployments.apps");
        assert!(registry.find("apps", "v1", "pods").is_none());
        assert!(registry.find("apps", "v2", "deployments").is_none());
        assert!(registry.find_kind("apps", "v1", "Deployment").is_some());
        let unknown =
            registry.resources().find(|r| crate::schema::builtin().kind(&r.group, &r.version, &r.kind).is_none());
        assert_eq!(unknown, None, "every kind has a schema");
    }

    #[test]
    fn versions_and_groups_that_show_the_same_objects_share_a_table() {
        let registry = Registry::builtin();
        let tables = |group: &str, version: &str, plural: &str| {
            let resource = registry.find(group, version, plural).expect("a resource");
            let stored = resource.stored.as_ref().expect("a stored form");
            (resource.table.to_string(), stored.api_version(), resource.is_stored_version())
        };
        let event = |own| ("events".to_owned(), "v1".to_owned(), own);
        assert_eq!(tables("", "v1", "events"), event(true));
        assert_eq!(tables("events.k8s.io", "v1", "events"), event(false));
        let hpa = |own| ("horizontalpodautoscalers.autoscaling".to_owned(), "autoscaling/v2".to_owned(), own);
        assert_eq!(tables("autoscaling", "v1", "horizontalpodautoscalers"), hpa(false));
        assert_eq!(tables("autoscaling", "v2", "horizontalpodautoscalers"), hpa(true));
        assert!(
            registry.find("authorization.k8s.io", "v1", "subjectaccessreviews").is_some_and(|r| r.stored.is_none())
        );
    }
}
