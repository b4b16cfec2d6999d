//! Roles and their bindings.

use serde_json::Value;

use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::{Kind, NameForm};
use crate::field::{Errors, Path};
use crate::object::Fields;

const GROUP: &str = "rbac.authorization.k8s.io";

pub static KINDS: &[&dyn Kind] = &[
    &Role { kind: "Role", namespaced: true },
    &Role { kind: "ClusterRole", namespaced: false },
    &Binding { kind: "RoleBinding", namespaced: true },
    &Binding { kind: "ClusterRoleBinding", namespaced: false },
];

struct Role {
    kind: &'static str,
    namespaced: bool,
}

impl Kind for Role {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn name_form(&self) -> NameForm {
        NameForm::PathSegment
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let rules = Path::new("rules");
        for (i, rule) in object.list_at(&["rules"]).iter().enumerate() {
            check_rule(rule, self.namespaced, &rules.index(i), errors);
        }
        if !self.namespaced && object.at(&["aggregationRule"]).is_some() {
            let rule = Path::new("aggregationRule");
            let path = rule.child("clusterRoleSelectors");
            let selectors = object.list_at(&["aggregationRule", "clusterRoleSelectors"]);
            if selectors.is_empty() {
                errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
            }
            for (i, selector) in selectors.iter().enumerate() {
                meta::label_selector(errors, &path.index(i), selector);
            }
        }
    }
}

fn check_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let none = |field: &str| rule.list_at(&[field]).is_empty();
    if none("verbs") {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if !none("nonResourceURLs") {
        let urls = &rule["nonResourceURLs"];
        if namespaced {
            errors.invalid(&path.child("nonResourceURLs"), urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !none("apiGroups") || !none("resources") || !none("resourceNames") {
            errors.invalid(
                &path.child("nonResourceURLs"),
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if none("apiGroups") {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if none("resources") {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

struct Binding {
    kind: &'static str,
    namespaced: bool,
}

const ROLE_REF: Shape =
    &[("APIGroup", "apiGroup", Part::Text), ("Kind", "kind", Part::Text), ("Name", "name", Part::Text)];

impl Kind for Binding {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn name_form(&self) -> NameForm {
        NameForm::PathSegment
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if object.text_at(&["roleRef", "apiGroup"]).is_empty() {
            object.set(&["roleRef", "apiGroup"], GROUP);
        }
        for subject in object.items_mut(&["subjects"]) {
            let people = matches!(subject.text_at(&["kind"]), "User" | "Group");
            if people && subject.text_at(&["apiGroup"]).is_empty() {
                subject.set(&["apiGroup"], GROUP);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("roleRef");
        let group = object.text_at(&["roleRef", "apiGroup"]);
        if group != GROUP {
            errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        let kind = object.text_at(&["roleRef", "kind"]);
        if !kinds.contains(&kind) {
            errors.not_supported(&path.child("kind"), kind, kinds);
        }
        let name = object.text_at(&["roleRef", "name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            names::invalid_each(errors, &path.child("name"), name, names::path_segment(name));
        }
        let subjects = Path::new("subjects");
        for (i, subject) in object.list_at(&["subjects"]).iter().enumerate() {
            self.check_subject(subject, &subjects.index(i), errors);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        if object.at(&["roleRef"]) != old.at(&["roleRef"]) {
            let shown = go_shape::by_value(object.at(&["roleRef"]), ROLE_REF);
            errors.invalid(&Path::new("roleRef"), shown, "cannot change roleRef");
        }
    }
}

impl Binding {
    fn check_subject(&self, subject: &Value, path: &Path<'_>, errors: &mut Errors) {
        let name = subject.text_at(&["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        let group = subject.text_at(&["apiGroup"]);
        match subject.text_at(&["kind"]) {
            "ServiceAccount" => {
                if !name.is_empty() {
                    names::invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name));
                }
                if !group.is_empty() {
                    errors.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if !self.namespaced && subject.text_at(&["namespace"]).is_empty() {
                    errors.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" if group != GROUP => errors.not_supported(&path.child("apiGroup"), group, &[GROUP]),
            "User" | "Group" => {}
            kind => errors.not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subjects_get_their_group_and_the_role_stays() {
        let kind = KINDS[2];
        let mut old = json!({"roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "User", "name": "u"}]});
        kind.default(&mut old);
        assert_eq!(old["subjects"][0]["apiGroup"], GROUP);
        let mut new = old.clone();
        new["roleRef"]["name"] = json!("b");
        let mut errors = Errors::default();
        kind.validate_update(&new, &old, &mut errors);
        assert_eq!(
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: cannot change roleRef"#
            ]
        );
    }

    #[test]
    fn a_rule_is_about_resources_or_urls() {
        let mut errors = Errors::default();
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]});
        KINDS[0].validate(&json!({"rules": [rule, {}]}), &mut errors);
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "rules[0].nonResourceURLs",
                "rules[0].nonResourceURLs",
                "rules[1].verbs",
                "rules[1].apiGroups",
                "rules[1].resources"
            ]
        );
    }
}
