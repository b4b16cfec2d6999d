//! Sets of field paths, in the form in which objects carry them (`fieldsV1`): a tree of path elements (`f:spec`,
//! `k:{"name":"a"}`, `v:"x"`). A node without children is a member of the set; one with children is where it has `.`.
//!
//! Sets are worked on as they are, without another form of them, because most writes touch few of an object's paths.

use serde_json::{Map, Value};

use crate::codec::escape_html;

/// The root, or any node below it.
pub type Set = Map<String, Value>;

/// Says of a node that has children that it is a member too.
const SELF: &str = ".";

/// The path element of a field.
pub fn field(name: &str) -> String {
    let mut element = String::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element
}

pub fn is_member(node: &Set) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The nodes below a node with their path elements.
pub fn children(node: &Set) -> impl Iterator<Item = (&String, &Set)> {
    node.iter()
        .filter(|(element, _)| *element != SELF)
        .filter_map(|(element, child)| Some((element, child.as_object()?)))
}

pub fn child<'s>(node: &'s Set, element: &str) -> Option<&'s Set> {
    node.get(element)?.as_object()
}

/// Makes a node a member; one without anything below it is.
pub fn mark(node: &mut Set) {
    if !node.is_empty() {
        node.insert(SELF.to_owned(), Value::Object(Set::new()));
    }
}

/// Adds what is in `theirs` to a set.
pub fn unite(ours: &mut Set, theirs: Set) {
    for (element, child) in theirs {
        if let Value::Object(child) = child {
            unite_child(ours, element, child);
        }
    }
}

fn unite_child(node: &mut Set, element: String, child: Set) {
    let Some(Value::Object(ours)) = node.get_mut(&element) else {
        node.insert(element, Value::Object(child));
        return;
    };
    let member = is_member(ours) || is_member(&child);
    ours.remove(SELF);
    for (element, grandchild) in child {
        if let Value::Object(grandchild) = grandchild
            && element != SELF
        {
            unite_child(ours, element, grandchild);
        }
    }
    if member {
        mark(ours);
    }
}

/// Removes the members that `theirs` has too; what is below a member stays.
pub fn subtract(ours: &mut Set, theirs: &Set) {
    for (element, theirs) in children(theirs) {
        if let Some(Value::Object(node)) = ours.get_mut(element) {
            let member = is_member(node) && !is_member(theirs);
            node.remove(SELF);
            subtract(node, theirs);
            match (member, node.is_empty()) {
                (true, _) => mark(node),
                (false, true) => drop(ours.remove(element)),
                (false, false) => {}
            }
        }
    }
}

/// The members that both sets have.
pub fn intersection(ours: &Set, theirs: &Set) -> Set {
    let both = children(ours).filter_map(|(element, ours)| {
        let theirs = child(theirs, element)?;
        let mut node = intersection(ours, theirs);
        let member = is_member(ours) && is_member(theirs);
        if member {
            mark(&mut node);
        }
        (member || !node.is_empty()).then(|| (element.clone(), Value::Object(node)))
    });
    both.collect()
}

/// Removes the field at a path, with all that is below it.
pub fn remove_below(set: &mut Set, path: &[&str]) {
    let [name, rest @ ..] = path else { return };
    let element = field(name);
    if rest.is_empty() {
        set.remove(&element);
    } else if let Some(Value::Object(node)) = set.get_mut(&element) {
        let member = is_member(node);
        remove_below(node, rest);
        if node.is_empty() && !member {
            set.remove(&element);
        }
    }
}

/// Whether the path of these elements is a member.
pub fn has(set: &Set, path: &[&str]) -> bool {
    let mut node = set;
    for element in path {
        match child(node, element) {
            Some(next) => node = next,
            None => return false,
        }
    }
    is_member(node)
}

/// Reads a set that a client sent; none where it is no set.
pub fn read(value: &Value) -> Option<Set> {
    let Value::Object(map) = value else { return value.is_null().then(Set::new) };
    let mut node = Set::new();
    for (element, below) in map {
        if element == SELF {
            continue;
        }
        let element = read_element(element)?;
        let below_object = if below.is_null() { &Value::Object(Set::new()) } else { below };
        unite_child(&mut node, element, read(below_object)?);
    }
    if map.contains_key(SELF) {
        mark(&mut node);
    }
    Some(node)
}

/// A path element as it is written here.
fn read_element(text: &str) -> Option<String> {
    let (kind, content) = text.split_at_checked(2)?;
    match kind {
        "f:" => Some(text.to_owned()),
        "i:" => content.parse::<i64>().ok().map(|index| format!("i:{index}")),
        "v:" => serde_json::from_str::<Value>(content).ok().map(|value| format!("v:{}", json(&value))),
        "k:" => {
            serde_json::from_str::<Map<String, Value>>(content).ok().map(|keys| format!("k:{}", json(&keys.into())))
        }
        _ => None,
    }
}

/// JSON as Go writes it: HTML stays out of strings.
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(&mut out, value);
    out
}

pub fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./: ".contains(&b)) => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        other => out.push_str(&escape_html(other.to_string())),
    }
}

/// A node that is being made: nothing, a member, or something that has members below it.
#[derive(Debug, Default)]
pub struct Branch(Option<Set>);

impl Branch {
    pub fn mark(&mut self) {
        mark(self.0.get_or_insert_default());
    }

    /// `element` is not there yet.
    pub fn attach(&mut self, element: String, child: Branch) {
        let Some(child) = child.0 else { return };
        let member = self.0.as_ref().is_some_and(is_member);
        let node = self.0.get_or_insert_default();
        node.insert(element, Value::Object(child));
        if member {
            mark(node);
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The whole set, if this is its root.
    pub fn into_set(self) -> Set {
        self.0.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    type Paths = BTreeSet<Vec<String>>;

    fn set(value: Value) -> Set {
        read(&value).expect("a set")
    }

    /// The members, told one by one.
    fn paths(node: &Set) -> Paths {
        let mut all = Paths::new();
        for (element, node) in children(node) {
            if is_member(node) {
                all.insert(vec![element.clone()]);
            }
            let below = paths(node).into_iter();
            all.extend(below.map(|path| [element.clone()].into_iter().chain(path).collect()));
        }
        all
    }

    fn of_paths(paths: &Paths) -> Set {
        let mut root = Set::new();
        for path in paths {
            let node = path
                .iter()
                .rev()
                .fold(Set::new(), |below, element| Set::from_iter([(element.clone(), Value::Object(below))]));
            unite_below(&mut root, node);
        }
        root
    }

    /// Unites where nodes on the way are no members.
    fn unite_below(ours: &mut Set, theirs: Set) {
        for (element, below) in theirs {
            let Value::Object(below) = below else { continue };
            match ours.get_mut(&element) {
                Some(Value::Object(there)) if below.is_empty() => mark(there),
                Some(Value::Object(there)) => {
                    let member = is_member(there);
                    there.remove(SELF);
                    unite_below(there, below);
                    if member {
                        mark(there);
                    }
                }
                _ => drop(ours.insert(element, Value::Object(below))),
            }
        }
    }

    fn some_paths() -> impl Strategy<Value = Paths> {
        proptest::collection::btree_set(proptest::collection::vec("f:[abc]", 1..4), 0..8)
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in some_paths(), b in some_paths()) {
            let (ours, theirs) = (of_paths(&a), of_paths(&b));
            prop_assert_eq!(paths(&ours), a.clone());
            prop_assert_eq!(set(ours.clone().into()), ours.clone());
            let mut union = ours.clone();
            unite(&mut union, theirs.clone());
            prop_assert_eq!(union, of_paths(&a.union(&b).cloned().collect()));
            let mut rest = ours.clone();
            subtract(&mut rest, &theirs);
            prop_assert_eq!(rest, of_paths(&a.difference(&b).cloned().collect()));
            prop_assert_eq!(intersection(&ours, &theirs), of_paths(&a.intersection(&b).cloned().collect()));
        }
    }

    #[test]
    fn fields_that_a_write_cannot_set_are_left_out() {
        let all = set(json!({"f:spec": {".": {}, "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {},
            "f:resources": {"f:limits": {}}}}, "f:nodeName": {}}, "f:status": {"f:phase": {}}}));
        let mut rest = all;
        remove_below(&mut rest, &["status"]);
        remove_below(&mut rest, &["spec", "containers"]);
        assert_eq!(rest, set(json!({"f:spec": {".": {}, "f:nodeName": {}}})));
    }

    #[test]
    fn what_clients_send_is_brought_into_one_form() {
        let sent = json!({"k:{\"b\": 1, \"a\": \"<\"}": {".": {}}, "v:\"x\"": null});
        assert_eq!(Value::Object(set(sent)), json!({"k:{\"a\":\"\\u003c\",\"b\":1}": {}, "v:\"x\"": {}}));
        for bad in [json!({"x:y": {}}), json!({"f": {}}), json!({"f:a": 1}), json!({"k:[]": {}}), json!([])] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}
