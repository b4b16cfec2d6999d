//! Reads `resources.txt`, which `generate.py` writes. It has a paragraph for each version of a group:
//!
//! ```text
//! apps/v1 17800 15
//! deployments deployment Deployment n cdDglpuw short=deploy categories=all stored
//!  scale Scale gpu of=autoscaling/v1
//!  status Deployment gpu
//! ```
//!
//! that is: the group's priority and the version's; a resource's plural, singular, kind, whether it is (n)amespaced or
//! of the (c)luster, its verbs by their letters; and its subresources, with group and version of kinds from elsewhere.
//! `stored`: objects are kept in this version, or in the one behind `=`. `hashed=`, `returned`: see `Resource`.

use std::sync::Arc;

use super::{Group, GroupVersionKind, Name, Resource, Subresource, Verbs, Version};

pub(super) fn read(text: &'static str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.trim_matches('\n').lines();
        let mut head = lines.next().unwrap_or_default().split(' ');
        let (group, version) = group_version(head.next().unwrap_or_default());
        let priority = head.next().and_then(|word| word.parse().ok()).unwrap_or(i32::MAX);
        let order = head.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let mut resources: Vec<Resource> = Vec::new();
        for line in lines {
            match (line.strip_prefix(' '), resources.last_mut()) {
                (Some(line), Some(resource)) => resource.subresources.push(subresource(line, group, version)),
                _ => resources.push(resource(line, group, version)),
            }
        }
        let resources = resources.into_iter().map(Arc::new).collect();
        let version = Version { name: version.into(), priority: order, resources };
        match groups.iter_mut().find(|known| known.name == group) {
            Some(known) => known.versions.push(version),
            None => groups.push(Group { name: group.into(), priority, versions: vec![version] }),
        }
    }
    groups
}

fn resource(line: &'static str, group: &'static str, version: &'static str) -> Resource {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (plural, singular, kind, scope, letters) = (word(), word(), word(), word(), word());
    let mut resource = Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: singular.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        namespaced: scope == "n",
        verbs: verbs(letters),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        table: table(plural, group),
        stored: None,
        returns_deleted: false,
        hashed: None,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("short", names) => resource.short_names = names.split(',').map(Name::from).collect(),
            ("categories", names) => resource.categories = names.split(',').map(Name::from).collect(),
            ("hashed", version) => resource.hashed = Some(version.into()),
            ("returned", _) => resource.returns_deleted = true,
            ("stored", elsewhere) => {
                let (group, version) = if elsewhere.is_empty() { (group, version) } else { group_version(elsewhere) };
                resource.table = table(plural, group);
                resource.stored = Some(gvk(group, version, kind));
            }
            _ => {}
        }
    }
    resource
}

fn subresource(line: &'static str, group: &'static str, version: &'static str) -> Subresource {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (name, kind, letters, of) = (word(), word(), word(), word());
    let (group, version) = of.strip_prefix("of=").map_or((group, version), group_version);
    Subresource { name: name.into(), kind: gvk(group, version, kind), verbs: verbs(letters) }
}

fn gvk(group: &'static str, version: &'static str, kind: &'static str) -> GroupVersionKind {
    GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
}

fn group_version(text: &'static str) -> (&'static str, &'static str) {
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    (if group == "core" { "" } else { group }, version)
}

fn table(plural: &'static str, group: &'static str) -> Name {
    if group.is_empty() { plural.into() } else { format!("{plural}.{group}").into() }
}

fn verbs(letters: &str) -> Verbs {
    "cdDglpuw"
        .chars()
        .zip(0..)
        .filter(|(letter, _)| letters.contains(*letter))
        .fold(Verbs::default(), |verbs, (_, bit)| verbs.or(Verbs(1 << bit)))
}
