//! The status of a job: which changes of it make sense. Most rules look only at what changes, so that a status that was
//! wrong before does not stand in the way of the rest.

use serde_json::Value;

use super::jobs::is_indexed;
use super::nonnegative_fields;
use crate::field::{Errors, Path, go_quote};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::object::Fields;

const UNCOUNTED: Shape = &[("Succeeded", "succeeded", Part::Plain), ("Failed", "failed", Part::Plain)];

/// Whether a condition of a job is true.
pub fn has_condition(job: &Value, kind: &str) -> bool {
    let conditions = job.list_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.text_at(&["type"]) == kind && c.text_at(&["status"]) == "True")
}

/// A number as Go's `strconv.Atoi` reads it.
fn index(text: &str) -> Result<i64, String> {
    let failed = || format!("cannot convert string to integer for index: {}", go_quote(text));
    text.parse().map_err(|_| failed())
}

/// `N` or `N-M`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let bounded = |text: &str| match index(text)? {
        index if index >= completions => Err(format!("too large index: {}", go_quote(text))),
        index => Ok(index),
    };
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        [only] => bounded(only).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (bounded(first)?, bounded(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            go_quote(text)
        )),
    }
}

/// How many indexes a list such as `1,3-5` has, which must be in order and below the number of completions.
pub fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut before: Option<i64> = None;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(before) = before.filter(|before| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        total += last - first + 1;
        before = Some(last);
    }
    Ok(total)
}

/// The first index that is in both lists; parts that can't be read are told elsewhere.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (completed, failed) = (read(completed), read(failed));
    let (mut c, mut f) = (0, 0);
    while let (Some(done), Some(lost)) = (completed.get(c), failed.get(f)) {
        if done.0 <= lost.1 && lost.0 <= done.1 {
            return Some(done.0.max(lost.0));
        }
        if done.0 <= lost.0 {
            c += 1;
        } else {
            f += 1;
        }
    }
    None
}

/// A job before and after, as the rules look at it.
struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
}

impl Change<'_> {
    fn moved(&self, field: &str) -> bool {
        self.new.at(&["status", field]) != self.old.at(&["status", field])
    }

    fn turned(&self, condition: &str) -> bool {
        has_condition(self.new, condition) != has_condition(self.old, condition)
    }
}

fn finished(job: &Value) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

pub fn check_change(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("status");
    nonnegative_fields(errors, &path, &new["status"], &["active", "succeeded", "failed", "ready", "terminating"]);
    check_uncounted(new, &path, errors);
    let change = Change { new, old };
    check_conditions(&change, &path, errors);
    check_times(&change, &path, errors);
    check_indexes(&change, &path, errors);
    check_counters(&change, &path, errors);
}

fn check_uncounted(job: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for list in ["succeeded", "failed"] {
        let at = path.child(list);
        for (i, uid) in job.list_at(&["status", "uncountedTerminatedPods", list]).iter().enumerate() {
            match uid.as_str().unwrap_or_default() {
                "" => errors.invalid(&at.index(i), "", "must not be empty"),
                uid if seen.contains(&uid) => errors.duplicate(&at.index(i), uid),
                uid => seen.push(uid),
            }
        }
    }
}

/// Pairs of conditions that can't both be true, and those that need another one first.
fn check_conditions(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("conditions");
    let is = |kind: &str| has_condition(change.new, kind);
    let was = |kind: &str| has_condition(change.old, kind);
    let mut refuse = |holds: bool, detail: &str| {
        if holds {
            errors.invalid_unshown(&path, detail);
        }
    };
    let (complete, failed) = (change.turned("Complete"), change.turned("Failed"));
    let (target, met) = (change.turned("FailureTarget"), is("SuccessCriteriaMet"));
    refuse(
        (complete || failed) && is("Complete") && is("Failed"),
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        (complete || target) && is("Complete") && is("FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        failed && is("Failed") && !is("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        complete && is("Complete") && !met,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(met && is("Failed"), "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(met && is("FailureTarget"), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        change.new.at(&["spec", "successPolicy"]).is_some() && !met && is("Complete"),
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        refuse(was(kind) && !is(kind), &format!("cannot disable the terminal {kind}=True condition"));
    }
    refuse(was("SuccessCriteriaMet") && !met, "cannot disable the SuccessCriteriaMet=True condition");
    refuse(
        was("Complete") && !was("SuccessCriteriaMet") && met,
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
}

fn check_times(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Change { new, old } = change;
    let time = |job: &'_ Value, field: &str| job.at(&["status", field]).and_then(Value::as_str).map(str::to_owned);
    let (start, end) = (time(new, "startTime"), time(new, "completionTime"));
    let complete = has_condition(new, "Complete");
    let at = path.child("completionTime");
    if change.turned("Complete") || change.moved("completionTime") {
        match (&end, complete) {
            (Some(end), false) => {
                errors.invalid(&at, end, "cannot set completionTime when there is no Complete=True condition")
            }
            (None, true) => errors.required(&at, "completionTime is required for Complete jobs"),
            _ => {}
        }
    }
    if (change.moved("startTime") || change.moved("completionTime"))
        && let (Some(start), Some(end)) = (&start, &end)
        && end < start
    {
        errors.invalid(&at, end, "must be equal to or after `startTime`");
    }
    if let (Some(end), Some(_)) = (&end, time(old, "completionTime"))
        && change.moved("completionTime")
    {
        errors.invalid(&at, end, "field is immutable");
    }
    let at = path.child("startTime");
    if start.is_none() && finished(new) && (finished(old) != finished(new) || change.moved("startTime")) {
        errors.required(&at, "startTime is required for finished job");
    }
    if time(old, "startTime").is_some() && change.moved("startTime") && new.bool_at(&["spec", "suspend"]) != Some(true)
    {
        errors.required(&at, "startTime cannot be removed for unsuspended job");
    }
}

fn check_indexes(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let job = change.new;
    let spec = &job["spec"];
    let completions = spec.int_at(&["completions"]);
    let completed = job.text_at(&["status", "completedIndexes"]);
    let failed = job.at(&["status", "failedIndexes"]).and_then(Value::as_str);
    let (completed_at, failed_at) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let per_index = spec.at(&["backoffLimitPerIndex"]).is_some();
    if change.moved("completedIndexes") {
        if let Some(Err(why)) = completions.map(|completions| count_indexes(completed, completions)) {
            errors.invalid(&completed_at, completed, format!("error parsing completedIndexes: {why}"));
        }
        if !completed.is_empty() && !is_indexed(spec) {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.invalid(&completed_at, completed, detail);
        }
    }
    let Some(failed) = failed else { return };
    if change.moved("failedIndexes") {
        if let Some(Err(why)) = completions.filter(|_| per_index).map(|most| count_indexes(failed, most)) {
            errors.invalid(&failed_at, failed, format!("error parsing failedIndexes: {why}"));
        }
        if !per_index {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&failed_at, failed, detail);
        }
    }
    if (change.moved("failedIndexes") || change.moved("completedIndexes"))
        && let Some(index) = completions.and_then(|most| overlap(completed, failed, most))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.invalid(&failed_at, failed, detail);
    }
}

fn check_counters(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Change { new, old } = change;
    let count = |job: &Value, field: &str| job.int_at(&["status", field]).unwrap_or_default();
    let done = finished(new);
    let ended = finished(new) != finished(old);
    for field in ["active", "terminating"] {
        if done && count(new, field) > 0 && (ended || change.moved(field)) {
            errors.invalid(&path.child(field), count(new, field), format!("{field}>0 is invalid for finished job"));
        }
    }
    let uncounted = ["status", "uncountedTerminatedPods"];
    let left = ["succeeded", "failed"].iter().any(|list| !new["status"][uncounted[1]].list_at(&[list]).is_empty());
    if done && left && (ended || change.moved(uncounted[1])) {
        let shown = go_shape::pointer(new.at(&uncounted), UNCOUNTED);
        errors.invalid(&path.child(uncounted[1]), shown, "must be empty for finished job");
    }
    if new.int_at(&["status", "ready"]).is_some_and(|ready| ready > count(new, "active"))
        && (change.moved("ready") || change.moved("active"))
    {
        errors.invalid(&path.child("ready"), count(new, "ready"), "cannot set more ready pods than active");
    }
    let spec = &new["spec"];
    // A job whose completions follow its parallelism may be made smaller.
    let elastic = is_indexed(spec) && spec.at(&["completions"]) == spec.at(&["parallelism"]);
    for (field, kept) in [("failed", true), ("succeeded", !elastic)] {
        if kept && count(new, field) < count(old, field) {
            errors.invalid(&path.child(field), count(new, field), format!("cannot decrease the {field} counter"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(old: Value, new: Value) -> Vec<String> {
        let job = |status: Value| json!({"spec": {"completions": 5, "completionMode": "Indexed"}, "status": status});
        let mut errors = Errors::default();
        check_change(&job(new), &job(old), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn indexes_are_in_order_and_below_completions() {
        assert_eq!(count_indexes("0,2-4", 5), Ok(4));
        assert_eq!(count_indexes("", 5), Ok(0));
        assert_eq!(count_indexes("5", 5), Err("too large index: \"5\"".into()));
        assert_eq!(count_indexes("2,1", 5), Err("non-increasing order, previous: 2, current: 1".into()));
        assert!(count_indexes("a", 5).is_err() && count_indexes("1-2-3", 5).is_err());
        assert_eq!(overlap("0-2", "2,4", 5), Some(2));
        assert_eq!(overlap("0,3", "1,4", 5), None);
    }

    #[test]
    fn a_job_ends_once() {
        let complete =
            json!([{"type": "Complete", "status": "True"}, {"type": "SuccessCriteriaMet", "status": "True"}]);
        let done = json!({"startTime": "2020-01-01T00:00:00Z", "completionTime": "2020-01-01T00:00:01Z", "conditions": complete});
        assert!(said(json!({"startTime": "2020-01-01T00:00:00Z"}), done.clone()).is_empty());
        let again = said(done, json!({"startTime": "2020-01-01T00:00:00Z"}));
        assert_eq!(
            again,
            [
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ]
        );
        assert_eq!(said(json!({"failed": 2}), json!({"failed": 1})).len(), 1);
    }
}
