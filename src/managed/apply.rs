//! Server-side apply: a manager says which fields it wants and how; it comes to own them, and what it no longer says and
//! nobody else owns goes away.

use std::borrow::Cow;

use serde_json::Value;

use super::entries::{self, Id, Operation};
use super::set::{self, Set, children, is_member};
use super::{STRIPPED, Write, changes, entries_of, merge, reset, track, typed};
use crate::codec::canonical::zero;
use crate::codec::{Target, Validation, from_yaml, json};
use crate::field::go_quote;
use crate::object::Fields;
use crate::patch::conform;
use crate::schema::Node;
use crate::status::{ApiError, Cause, Details};

/// Who is said to manage the fields of an object that nobody managed when it is first applied to.
const BEFORE_FIRST: &str = "before-first-apply";
/// The one manager that a client-side apply is taken over for, and where that left its configuration.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies the configuration in a request's body. `live` is what is there, in the stored version; none where it is to be
/// created. The result is in the version of `target`, canonical, before defaults, and says who manages its fields.
pub fn apply(
    write: Write<'_>,
    target: Target<'_>,
    live: Option<&Value>,
    body: &[u8],
    validation: Validation,
    force: bool,
) -> Result<(Value, Vec<String>), ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let yaml = from_yaml(body).map_err(|why| bad(&format!("error converting YAML to JSON: {why}")))?;
    let configuration = match yaml.value {
        Value::Null => Value::Object(serde_json::Map::new()),
        Value::Object(map) => Value::Object(map),
        other => {
            let what = json::kind_of(&other);
            let ty = "map[string]interface {}";
            return Err(bad(&format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go value of type {ty}"
            )));
        }
    };
    let object = Applier { write, target, live, configuration: &configuration }.run(force)?;
    match validation {
        Validation::Strict if !yaml.repeated.is_empty() => {
            let lines: Vec<String> = yaml.repeated.iter().map(|line| format!("  {line}")).collect();
            Err(ApiError::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n{}",
                lines.join("\n")
            )))
        }
        Validation::Warn => Ok((object, yaml.repeated)),
        _ => Ok((object, Vec::new())),
    }
}

/// Upstream passes these on as they are: they have no reason, and are the server's.
fn plain(message: String) -> ApiError {
    ApiError::new(500, "", message)
}

#[derive(Clone, Copy)]
struct Applier<'a> {
    write: Write<'a>,
    target: Target<'a>,
    live: Option<&'a Value>,
    configuration: &'a Value,
}

impl<'a> Applier<'a> {
    fn run(self, force: bool) -> Result<Value, ApiError> {
        let Applier { write, target, live, configuration } = self;
        let (group, version, kind) = kind_of(configuration);
        if (&*group, &*version, &*kind) != (target.group, target.version, target.kind) {
            return Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
        }
        if configuration.at(&["metadata", "managedFields"]).is_some() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let no_schema = || ApiError::internal(format!("no schema for kind {:?}", target.kind));
        let node = write.versions.node(write.api_version, target.kind).ok_or_else(no_schema)?;
        typed::check(node, configuration)
            .map_err(|why| plain(format!("failed to create typed patch object ({}): {why}", self.named())))?;
        let current = match live {
            Some(live) => write.versions.convert(live, write.api_version).ok_or_else(no_schema)?,
            None => {
                let mut new = zero(node);
                new.set(&["kind"], target.kind);
                new.set(&["apiVersion"], write.api_version);
                Cow::Owned(new)
            }
        };
        let mut current = current.into_owned();
        entries::take(&mut current);
        let outcome = self.attempt(node, &current, force).or_else(|failure| match failure {
            Failure::Error(error) => Err(error),
            Failure::Conflicts(conflicts) => {
                let left = self.not_left_by_client_side_apply(node, &current, conflicts);
                if !left.is_empty() {
                    return Err(conflict(&left));
                }
                self.attempt(node, &current, true).map_err(|failure| match failure {
                    Failure::Error(error) => error,
                    Failure::Conflicts(conflicts) => conflict(&conflicts),
                })
            }
        });
        let (mut object, managed) = outcome?;
        if write.manager == KUBECTL && !object.text_at(&["metadata", "annotations", LAST_APPLIED]).is_empty() {
            let mut said = configuration.clone();
            said.take_at(&["metadata", "annotations", LAST_APPLIED]);
            object.set(&["metadata", "annotations", LAST_APPLIED], format!("{}\n", set::json(&said)));
        }
        entries::take(&mut object);
        entries::put(&mut object, managed);
        Ok(object)
    }

    /// `NAMESPACE/NAME; GROUP/VERSION, Kind=KIND` of the configuration.
    fn named(self) -> String {
        let Target { group, version, kind } = self.target;
        let text = |field: &str| self.configuration.text_at(&["metadata", field]);
        format!("{}/{}; {group}/{version}, Kind={kind}", text("namespace"), text("name"))
    }

    /// The object that comes of it, and the entries.
    fn attempt(self, node: Node<'_>, current: &Value, force: bool) -> Result<(Value, Vec<Value>), Failure> {
        let Applier { write, live, configuration, .. } = self;
        let failed = |what: &str| {
            let what = format!("failed to {what}: ");
            move |why: String| Failure::Error(plain(what + &why))
        };
        let mut managed = live.map(entries_of).unwrap_or_default();
        if let Some(live) = live.filter(|_| managed.is_empty()) {
            let before = Write { manager: BEFORE_FIRST, ..write };
            track(before, None, live, &mut managed);
        }
        let mut object = merge::merge(node, current, configuration).map_err(failed("merge config"))?;
        let mut fields = typed::fields(node, configuration).map_err(failed("get field set"))?;
        reset::filter(write.reset, &mut fields);
        let id = write.id(Operation::Apply);
        let last = managed.iter().position(|entry| entries::id(entry) == id).map(|index| managed.remove(index));
        let mut own = entries::new(id, write.api_version, last.as_ref().and_then(entries::time), fields);
        if let Some(last) = &last {
            managed.push(own.clone());
            object = self.prune(object, &managed, last);
            managed.pop();
        }
        let changes = changes(write, Some(current), &object, &managed).map_err(failed("compare objects"))?;
        if !force {
            let conflicts: Vec<Conflict> = managed
                .iter()
                .filter_map(|entry| {
                    let changes = changes.of(entry)?;
                    let mut contested = changes.modified.clone();
                    set::unite(&mut contested, changes.added.clone());
                    let fields = set::intersection(entries::fields(entry)?, &contested);
                    (!fields.is_empty()).then(|| Conflict { entry: entry.clone(), fields })
                })
                .collect();
            if !conflicts.is_empty() {
                return Err(Failure::Conflicts(conflicts));
            }
        }
        changes.displace(&mut managed);
        let changed = live.is_none() || object != *current;
        set::subtract(entries::fields_mut(&mut own), &STRIPPED);
        if changed {
            own.set(&["time"], write.now);
        }
        if entries::fields(&own).is_some_and(|fields| !fields.is_empty()) {
            managed.push(own);
        }
        if changed {
            conform::conform(node, &mut object).map_err(|why| {
                let Target { group, version, kind } = self.target;
                let why = format!("unable to convert unstructured object to {group}/{version}, Kind={kind}: {why}");
                let named = self.named();
                Failure::Error(plain(format!("failed to convert new object ({named}) to proper version: {why}")))
            })?;
        }
        Ok((object, managed))
    }

    /// Takes out what the manager said the last time and doesn't say now, unless somebody else owns it.
    fn prune(self, merged: Value, managed: &[Value], last: &Value) -> Value {
        let versions = self.write.versions;
        let Some(said) = entries::fields(last).filter(|fields| !fields.is_empty()) else { return merged };
        let version = last.text_at(&["apiVersion"]);
        let see = |object: &Value, version: &str| {
            Some((versions.node(version, self.target.kind)?, versions.convert(object, version)?.into_owned()))
        };
        let Some((then, whole)) = see(&merged, version) else { return merged };
        let said = typed::name_fields(then, said);
        let mut pruned = whole.clone();
        typed::remove(then, &mut pruned, &said);
        // The version of the last configuration comes first, then the others.
        let mut owned: Vec<(&str, Set)> = vec![(version, Set::new())];
        for entry in managed {
            let version = entry.text_at(&["apiVersion"]);
            let fields = entries::fields(entry).cloned().unwrap_or_default();
            match owned.iter_mut().find(|(known, _)| *known == version) {
                Some((_, all)) => set::unite(all, fields),
                None => owned.push((version, fields)),
            }
        }
        for (version, fields) in owned {
            let (Some((node, whole)), Some((_, part))) = (see(&whole, version), see(&pruned, version)) else {
                continue;
            };
            let (Ok(mut gone), Ok(left)) = (typed::fields(node, &whole), typed::fields(node, &part)) else { continue };
            gone = typed::name_fields(node, &gone);
            set::subtract(&mut gone, &typed::name_fields(node, &left));
            set::subtract(&mut gone, &typed::name_fields(node, &fields));
            pruned = whole;
            typed::remove(node, &mut pruned, &gone);
        }
        // Elements without an owner that stood below what is gone come back.
        if let Some((_, part)) = see(&pruned, version)
            && let (Ok(mut gone), Ok(left)) = (typed::fields(then, &whole), typed::fields(then, &part))
        {
            gone = typed::name_fields(then, &gone);
            set::subtract(&mut gone, &typed::name_fields(then, &left));
            pruned = whole;
            typed::remove(then, &mut pruned, &set::intersection(&gone, &said));
        }
        versions.convert(&pruned, self.write.api_version).map(Cow::into_owned).unwrap_or(merged)
    }

    /// The conflicts that remain when kubectl takes over from its own client-side apply, whose configuration is in an
    /// annotation: what that said and still holds is no conflict.
    fn not_left_by_client_side_apply(
        self,
        node: Node<'_>,
        current: &Value,
        mut conflicts: Vec<Conflict>,
    ) -> Vec<Conflict> {
        let said = || {
            let said: Value = serde_json::from_str(current.text_at(&["metadata", "annotations", LAST_APPLIED])).ok()?;
            if self.write.manager != KUBECTL || said.text_at(&["apiVersion"]) != self.write.api_version {
                return None;
            }
            typed::check(node, &said).ok()?;
            let mut fields = typed::fields(node, &said).ok()?;
            let changes = super::compare::compare(node, &said, current).ok()?;
            for other in [&changes.modified, &changes.added, &changes.removed] {
                set::subtract(&mut fields, other);
            }
            Some(fields)
        };
        if let Some(said) = said() {
            for conflict in &mut conflicts {
                set::subtract(&mut conflict.fields, &said);
            }
            conflicts.retain(|conflict| !conflict.fields.is_empty());
        }
        conflicts
    }
}

/// Group, version and kind that a configuration says.
fn kind_of(configuration: &Value) -> (String, String, String) {
    let text = |name: &str| configuration.text_at(&[name]);
    let parts: Vec<&str> = text("apiVersion").split('/').collect();
    let (group, version) = match *parts {
        [version] => ("", version),
        [group, version] => (group, version),
        _ => return Default::default(),
    };
    (group.to_owned(), version.to_owned(), text("kind").to_owned())
}

enum Failure {
    Error(ApiError),
    Conflicts(Vec<Conflict>),
}

/// The fields of one manager that another wants to change.
struct Conflict {
    entry: Value,
    fields: Set,
}

impl Conflict {
    fn manager(&self) -> String {
        let Id { manager, operation, api_version, subresource } = entries::id(&self.entry);
        let mut shown = go_quote(manager);
        if !subresource.is_empty() {
            shown.push_str(&format!(" with subresource {}", go_quote(subresource)));
        }
        if operation == Operation::Update {
            shown.push_str(&format!(" using {api_version}"));
        }
        shown
    }

    fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.fields, &mut String::new(), &mut paths);
        paths
    }
}

/// The paths of a set's members: those of one place before what is below them.
fn collect(node: &Set, path: &mut String, out: &mut Vec<String>) {
    let end = path.len();
    out.extend(
        children(node)
            .filter(|(_, below)| is_member(below))
            .map(|(element, _)| format!("{path}{}", typed::shown(element))),
    );
    for (element, below) in children(node) {
        path.push_str(&typed::shown(element));
        collect(below, path, out);
        path.truncate(end);
    }
}

fn conflict(conflicts: &[Conflict]) -> ApiError {
    let mut sorted: Vec<&Conflict> = conflicts.iter().collect();
    let key = |conflict: &&Conflict| {
        let Id { manager, operation, api_version, subresource } = entries::id(&conflict.entry);
        [manager, if operation == Operation::Apply { "Apply" } else { "Update" }, api_version, subresource].join("\0")
    };
    sorted.sort_by_key(key);
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in sorted {
        let manager = conflict.manager();
        lines.push(format!("conflicts with {manager}:"));
        for path in conflict.paths() {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {manager}"),
                field: path,
            });
        }
    }
    let message = match &*causes {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    ApiError::new(409, "Conflict", message).with_details(Details { causes, ..Details::default() })
}
