//! RBAC: what roles allow, for whom they are bound to. The roles and bindings in the store are indexed by subject; the
//! index follows the store's events, a moment behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kontiki_storage::{Key, Record, Store};
use parking_lot::RwLock;
use serde::{Deserialize, Deserializer};
use tokio_util::sync::CancellationToken;

use super::User;
use super::authorize::{Attributes, Target};
use crate::field::go_quote;

const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const CLUSTER_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const TABLES: [&str; 4] = [CLUSTER_ROLES, ROLES, CLUSTER_BINDINGS, BINDINGS];

/// `PolicyRule`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// What lets everything through.
    pub fn everything() -> [Rule; 2] {
        let all = || vec!["*".to_owned()];
        [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ]
    }
}

#[derive(Deserialize)]
pub struct Role {
    /// Null in roles that are put together from others.
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    /// Of the binding itself: `namespace/name`, the namespace being empty at the cluster scope.
    #[serde(skip)]
    namespace: String,
    #[serde(skip)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Why something is allowed.
#[derive(Debug, Clone)]
pub struct Grant {
    binding: Arc<Binding>,
    subject: Subject,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding { namespace, name, role_ref, .. } = &*self.binding;
        let (kind, place) = match namespace.as_str() {
            "" => ("ClusterRoleBinding", name.clone()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let (role, subject) = (go_quote(&role_ref.name), &self.subject);
        write!(f, "RBAC: allowed by {kind} {} of {} {role} to {} ", go_quote(&place), role_ref.kind, subject.kind)?;
        match subject.kind.as_str() {
            "ServiceAccount" => f.write_str(&go_quote(&format!("{}/{}", subject.name, subject.namespace))),
            _ => f.write_str(&go_quote(&subject.name)),
        }
    }
}

/// `(namespace, name)`; the namespace is empty at the cluster scope.
type Place = (String, String);

#[derive(Default)]
struct Index {
    roles: HashMap<Place, Arc<[Rule]>>,
    bindings: HashMap<Place, Arc<Binding>>,
    by_subject: HashMap<Subject, Vec<Arc<Binding>>>,
}

#[derive(Default)]
pub struct Rbac(RwLock<Index>);

impl Rbac {
    /// Reads what is there and follows what happens.
    pub fn follow(store: &Store, stopping: &CancellationToken) -> Arc<Rbac> {
        let rbac = Arc::new(Rbac::default());
        for table in TABLES {
            let after = rbac.read(store, table);
            let (rbac, store, stopping) = (rbac.clone(), store.clone(), stopping.clone());
            tokio::spawn(async move {
                let _ = stopping.run_until_cancelled(rbac.keep_up(&store, table, after)).await;
            });
        }
        rbac
    }

    fn read(&self, store: &Store, table: &str) -> u64 {
        let view = store.view();
        let mut index = self.0.write();
        let keys: Vec<Place> = match table {
            CLUSTER_ROLES | ROLES => index.roles.keys().cloned().collect(),
            _ => index.bindings.keys().cloned().collect(),
        };
        for place in keys.iter().filter(|(namespace, _)| namespace.is_empty() == at_cluster_scope(table)) {
            index.remove(table, place);
        }
        for record in view.prefix(&format!("{table}/")) {
            index.put(table, record);
        }
        view.revision()
    }

    async fn keep_up(&self, store: &Store, table: &str, mut after: u64) {
        loop {
            if let Ok(mut cursor) = store.subscribe(table, after) {
                while let Ok(event) = cursor.next().await {
                    let mut index = self.0.write();
                    match &event.record {
                        Some(record) => index.put(table, record),
                        None => index.remove(table, &place(table, &event.key)),
                    }
                }
            }
            // Too far behind, as after a snapshot.
            after = self.read(store, table);
        }
    }

    /// What allows it; or else what went wrong on the way, which is nothing as a rule.
    pub fn allows(&self, attributes: &Attributes<'_>) -> Result<Grant, String> {
        let mut errors = Vec::new();
        let namespace = match attributes.what {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let found = self
            .visit(attributes.user, namespace, &mut errors, |rules| rules.iter().any(|rule| rule.allows(attributes)));
        match (found, errors.as_slice()) {
            (Some(grant), _) => Ok(grant),
            (None, []) => Err(String::new()),
            (None, [one]) => Err(format!("RBAC: {one}")),
            (None, several) => Err(format!("RBAC: [{}]", several.join(", "))),
        }
    }

    /// All rules that apply to a user in a namespace.
    pub fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, &mut errors, |rules| {
            all.extend_from_slice(rules);
            false
        });
        (all, errors)
    }

    /// Shows the rules of each binding that names the user: those of the cluster first, then the namespace's.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        errors: &mut Vec<String>,
        mut stop: impl FnMut(&[Rule]) -> bool,
    ) -> Option<Grant> {
        let index = self.0.read();
        let subjects = subjects_of(user);
        let scopes = ["", namespace];
        for scope in &scopes[..if namespace.is_empty() { 1 } else { 2 }] {
            for subject in &subjects {
                let bindings = index.by_subject.get(subject).map(Vec::as_slice).unwrap_or_default();
                for binding in bindings.iter().filter(|binding| binding.namespace == *scope) {
                    match index.rules_of(binding) {
                        Ok(rules) if stop(rules) => {
                            return Some(Grant { binding: binding.clone(), subject: subject.clone() });
                        }
                        Ok(_) => {}
                        Err(error) if errors.contains(&error) => {}
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        None
    }
}

impl Index {
    fn put(&mut self, table: &str, record: &Record) {
        let place = place(table, &record.key);
        self.remove(table, &place);
        match table {
            CLUSTER_ROLES | ROLES => match serde_json::from_slice::<Role>(&record.value) {
                Ok(role) => drop(self.roles.insert(place, role.rules.into())),
                Err(error) => tracing::error!(key = %record.key, %error, "this role can't be read"),
            },
            _ => match serde_json::from_slice::<Binding>(&record.value) {
                Ok(mut binding) => {
                    (binding.namespace, binding.name) = place.clone();
                    for subject in binding.subjects.iter_mut() {
                        match subject.kind.as_str() {
                            // Without a namespace it is in that of the binding.
                            "ServiceAccount" if subject.namespace.is_empty() => {
                                subject.namespace.clone_from(&binding.namespace);
                            }
                            "ServiceAccount" => {}
                            _ => subject.namespace.clear(),
                        }
                    }
                    let binding = Arc::new(binding);
                    for subject in &binding.subjects {
                        self.by_subject.entry(subject.clone()).or_default().push(binding.clone());
                    }
                    self.bindings.insert(place, binding);
                }
                Err(error) => tracing::error!(key = %record.key, %error, "this role binding can't be read"),
            },
        }
    }

    fn remove(&mut self, table: &str, place: &Place) {
        if matches!(table, CLUSTER_ROLES | ROLES) {
            self.roles.remove(place);
            return;
        }
        let Some(binding) = self.bindings.remove(place) else { return };
        for subject in &binding.subjects {
            if let Some(bindings) = self.by_subject.get_mut(subject) {
                bindings.retain(|other| !Arc::ptr_eq(other, &binding));
                if bindings.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }

    fn rules_of(&self, binding: &Binding) -> Result<&[Rule], String> {
        let RoleRef { kind, name } = &binding.role_ref;
        let namespace = if kind == "Role" { binding.namespace.clone() } else { String::new() };
        let rules = self.roles.get(&(namespace, name.clone())).map(|rules| &**rules);
        rules.ok_or_else(|| {
            format!("{}.rbac.authorization.k8s.io {} not found", kind.to_ascii_lowercase(), go_quote(name))
        })
    }
}

fn at_cluster_scope(table: &str) -> bool {
    matches!(table, CLUSTER_ROLES | CLUSTER_BINDINGS)
}

fn place(table: &str, key: &Key) -> Place {
    let rest = key.as_str().get(table.len() + 1..).unwrap_or_default();
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    (namespace.to_owned(), name.to_owned())
}

/// All that a binding may call a user.
fn subjects_of(user: &User) -> Vec<Subject> {
    let subject = |kind: &str, namespace: &str, name: &str| Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    };
    let mut subjects = vec![subject("User", "", &user.name)];
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    subjects.extend(account.map(|(namespace, name)| subject("ServiceAccount", namespace, name)));
    subjects.extend(user.groups.iter().map(|group| subject("Group", "", group)));
    subjects
}

impl Rule {
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        if !any(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.what {
            Target::Path(path) => self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(start) => path.starts_with(start),
                None => url == path,
            }),
            Target::Resource { group, resource, subresource, name, .. } => {
                any(&self.api_groups, group)
                    && self.resources.iter().any(|wanted| match wanted.split_once('/') {
                        None => wanted == "*" || (subresource.is_empty() && wanted == resource),
                        Some((parent, child)) => {
                            !subresource.is_empty() && child == subresource && (parent == "*" || parent == resource)
                        }
                    })
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|wanted| wanted == name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str, urls: &str) -> Rule {
        let list =
            |text: &str| text.split(' ').filter(|t| *t != "-").map(|t| t.trim_matches('\'').to_owned()).collect();
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            non_resource_urls: list(urls),
        }
    }

    #[test]
    fn rules_match_as_upstream() {
        let user = User::default();
        let resource = |verb, group, resource, subresource, name| Attributes {
            user: &user,
            verb,
            what: Target::Resource { group, resource, subresource, namespace: "x", name },
        };
        let get_pods = rule("get list", "''", "pods */scale", "-", "-");
        assert!(get_pods.allows(&resource("get", "", "pods", "", "p")));
        assert!(!get_pods.allows(&resource("get", "", "pods", "log", "p")));
        assert!(get_pods.allows(&resource("get", "", "deployments", "scale", "p")));
        assert!(!get_pods.allows(&resource("get", "apps", "pods", "", "p")));
        assert!(!get_pods.allows(&resource("watch", "", "pods", "", "p")));
        let one = rule("*", "*", "*", "only", "-");
        assert!(one.allows(&resource("get", "apps", "deployments", "scale", "only")));
        assert!(!one.allows(&resource("list", "apps", "deployments", "", "")));
        let paths = rule("get", "-", "-", "-", "/metrics /a/*");
        let path = |verb, path| Attributes { user: &user, verb, what: Target::Path(path) };
        assert!(paths.allows(&path("get", "/metrics")));
        assert!(paths.allows(&path("get", "/a/b/c")));
        assert!(!paths.allows(&path("get", "/a")));
        assert!(!paths.allows(&path("post", "/metrics")));
    }
}
