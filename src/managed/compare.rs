//! What differs between two states of an object, as sets of fields.

use serde_json::{Map, Value};

use super::set::{Branch, Set};
use super::shape::{Form, Shape};
use crate::schema::Node;

#[derive(Debug, Default)]
pub struct Comparison {
    pub added: Set,
    pub removed: Set,
    /// In both, but different.
    pub modified: Set,
}

/// Fails where an element of a list can't be told from others.
pub fn compare(node: Node<'_>, old: &Value, new: &Value) -> Result<Comparison, String> {
    let mut changes = Changes::default();
    walk(Shape::Typed(node), Some(old), Some(new), &mut changes)?;
    let Changes { added, removed, modified } = changes;
    Ok(Comparison { added: added.into_set(), removed: removed.into_set(), modified: modified.into_set() })
}

/// The changes at one place and below it.
#[derive(Default)]
struct Changes {
    added: Branch,
    removed: Branch,
    modified: Branch,
}

impl Changes {
    fn attach(&mut self, element: impl FnOnce() -> String, below: Changes) {
        let Changes { added, removed, modified } = below;
        match (added.is_nothing(), removed.is_nothing(), modified.is_nothing()) {
            (true, true, true) => {}
            // Most often it is one of them.
            (false, true, true) => self.added.attach(element(), added),
            (true, false, true) => self.removed.attach(element(), removed),
            (true, true, false) => self.modified.attach(element(), modified),
            _ => {
                let element = element();
                self.added.attach(element.clone(), added);
                self.removed.attach(element.clone(), removed);
                self.modified.attach(element, modified);
            }
        }
    }
}

type Done = Result<(), String>;

fn walk(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, out: &mut Changes) -> Done {
    let mut leaf = false;
    let (before, after) = (old.map(|old| shape.form(Some(old))), new.map(|new| shape.form(Some(new))));
    if let Some(form) = before.filter(|form| after.is_none_or(|after| after != *form)) {
        leaf = as_form(form, shape, old, new, out)?;
    }
    if let Some(form) = after {
        leaf = as_form(form, shape, old, new, out)?;
    }
    match (old, new) {
        _ if leaf => {}
        (None, _) => out.added.mark(),
        (_, None) => out.removed.mark(),
        _ => {}
    }
    Ok(())
}

/// Whether the place was looked at as one piece.
fn as_form(
    form: Form,
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Changes,
) -> Result<bool, String> {
    match form {
        Form::List => {
            let (before, after) = (elements(old), elements(new));
            if !before.is_empty() || !after.is_empty() {
                list(shape, before, after, out)?;
                return Ok(false);
            }
        }
        Form::Map => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if before.is_some_and(|map| !map.is_empty()) || after.is_some_and(|map| !map.is_empty()) {
                map(shape, before, after, out)?;
                return Ok(false);
            }
        }
        Form::Scalar | Form::AtomicList | Form::AtomicMap => {}
    }
    match (old, new) {
        (None, _) => out.added.mark(),
        (_, None) => out.removed.mark(),
        (Some(old), Some(new)) if old != new => out.modified.mark(),
        _ => {}
    }
    Ok(true)
}

fn elements(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn map(
    shape: Shape<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    out: &mut Changes,
) -> Done {
    let mut member = |name: &str, old: Option<&Value>, new: Option<&Value>| -> Done {
        // Most members haven't changed, and many of them can be told so at once.
        if let (Some(old), Some(new)) = (old, new)
            && !old.is_object()
            && old == new
        {
            return Ok(());
        }
        let mut below = Changes::default();
        walk(shape.member(name).0, old, new, &mut below)?;
        out.attach(|| super::set::field(name), below);
        Ok(())
    };
    // Both are sorted.
    let (mut old, mut new) = (old.into_iter().flatten().peekable(), new.into_iter().flatten().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
        };
        let ours = if order.is_le() { old.next() } else { None };
        let theirs = if order.is_ge() { new.next() } else { None };
        if let Some((name, _)) = ours.or(theirs) {
            member(name, ours.map(|(_, value)| value), theirs.map(|(_, value)| value))?;
        }
    }
}

fn list(shape: Shape<'_>, old: &[Value], new: &[Value], out: &mut Changes) -> Done {
    if old == new {
        return Ok(());
    }
    let item = shape.item();
    let one = |element: String, old: Option<&Value>, new: Option<&Value>, out: &mut Changes| {
        let mut below = Changes::default();
        walk(item, old, new, &mut below)?;
        out.attach(|| element, below);
        Done::Ok(())
    };
    // Path elements are told only of what has changed where every element is at its place, and alone.
    let paired = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| shape.are_one(old, new));
    if paired && !has_twice(shape, old) {
        for (old, new) in old.iter().zip(new).filter(|(old, new)| old != new) {
            one(shape.element(old)?, Some(old), Some(new), out)?;
        }
        return Ok(());
    }
    let (old, new) = (named(shape, old)?, named(shape, new)?);
    let (mut old, mut new) = (&old[..], &new[..]);
    while let Some((element, _)) = old.first().into_iter().chain(new.first()).min_by_key(|(element, _)| element) {
        let (olds, news) = (taken(&mut old, element), taken(&mut new, element));
        let element = element.clone();
        match (olds, news) {
            ([] | [_], [] | [_]) => {
                one(element, olds.first().map(|(_, value)| *value), news.first().map(|(_, value)| *value), out)?;
            }
            // What is there twice is owned as one piece.
            ([_, _, ..], [_, _, ..]) => {
                if olds != news {
                    out.modified.attach(element, marked());
                }
            }
            ([_, _, ..], news) => {
                if let Some((_, new)) = news.first() {
                    one(element.clone(), None, Some(new), out)?;
                }
                out.removed.attach(element, marked());
            }
            (olds, _) => {
                if let Some((_, old)) = olds.first() {
                    one(element.clone(), Some(old), None, out)?;
                }
                out.added.attach(element, marked());
            }
        }
    }
    Ok(())
}

/// The elements with their path elements, in the order of these.
fn named<'v>(shape: Shape<'_>, list: &'v [Value]) -> Result<Vec<(String, &'v Value)>, String> {
    let mut named = Vec::with_capacity(list.len());
    for value in list {
        named.push((shape.element(value)?, value));
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(named)
}

/// Those at the beginning that are named so.
fn taken<'l, 'v>(list: &mut &'l [(String, &'v Value)], element: &str) -> &'l [(String, &'v Value)] {
    let (taken, rest) = list.split_at(list.iter().take_while(|(name, _)| name == element).count());
    *list = rest;
    taken
}

fn marked() -> Branch {
    let mut branch = Branch::default();
    branch.mark();
    branch
}

/// Lists are short; where one isn't, the long way is taken.
fn has_twice(shape: Shape<'_>, list: &[Value]) -> bool {
    const MANY: usize = 32;
    let again = |index: usize| list[..index].iter().any(|other| shape.are_one(other, &list[index]));
    list.len() > MANY || (1..list.len()).any(again)
}
