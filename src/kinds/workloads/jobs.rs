//! Job and CronJob.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{check_labels, cron, job_status, name_warning, nonnegative_fields};
use crate::field::{Errors, Path, Raw};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::pods::{shown_spec, shown_template};
use crate::kinds::{Kind, Selectable, copy_field, meta, names, pods, reset_status, selector};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Job, &CronJob];

const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
/// From so many completions on, parallelism and failed indexes are limited further.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_OF_MANY: i64 = 10_000;
const MAX_FAILURE_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITION_PATTERNS: usize = 20;
const MAX_SUCCESS_RULES: usize = 20;
const MAX_MANAGER: usize = 63;
const MAX_SUCCEEDED_INDEXES: usize = 64 * 1024;

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The same, as they were called before labels of Kubernetes had a domain.
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";

const FAILURE_POLICY: Shape = &[(
    "Rules",
    "rules",
    Part::List(&[
        ("Action", "action", Part::Text),
        (
            "OnExitCodes",
            "onExitCodes",
            Part::Pointer(&[
                ("ContainerName", "containerName", Part::Plain),
                ("Operator", "operator", Part::Text),
                ("Values", "values", Part::Plain),
            ]),
        ),
        (
            "OnPodConditions",
            "onPodConditions",
            Part::List(&[("Type", "type", Part::Text), ("Status", "status", Part::Text)]),
        ),
    ]),
)];

const SUCCESS_POLICY: Shape = &[(
    "Rules",
    "rules",
    Part::List(&[
        ("SucceededIndexes", "succeededIndexes", Part::Plain),
        ("SucceededCount", "succeededCount", Part::Plain),
    ]),
)];

pub fn is_indexed(spec: &Value) -> bool {
    spec.text_at(&["completionMode"]) == "Indexed"
}

/// The condition of a pod is true where a rule does not say otherwise.
fn default_failure_policy(spec: &mut Value) {
    for rule in spec.items_mut(&["podFailurePolicy", "rules"]) {
        for pattern in rule.items_mut(&["onPodConditions"]) {
            if pattern.text_at(&["status"]).is_empty() {
                pattern.set(&["status"], "True");
            }
        }
    }
}

fn default_template(spec: &mut Value) {
    spec.make_map(&["template"]);
    if let Some(template) = spec.at_mut(&["template"]) {
        pods::default_template(template);
    }
}

/// The spec of a job, also where it stands in a template.
fn check_spec(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let number = |field: &str| spec.int_at(&[field]);
    nonnegative_fields(
        errors,
        path,
        spec,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
    );
    let per_index = number("backoffLimitPerIndex");
    if number("maxFailedIndexes").is_some() && per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.at(&["managedBy"]).and_then(Value::as_str) {
        let path = path.child("managedBy");
        names::domain_prefixed_path(errors, &path, manager);
        if manager.len() > MAX_MANAGER {
            errors.too_long(&path, MAX_MANAGER);
        }
    }
    check_completion_mode(spec, path, errors);
    if spec.at(&["podFailurePolicy"]).is_some() {
        check_failure_policy(spec, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = spec.at(&["successPolicy"]) {
        let path = path.child("successPolicy");
        if is_indexed(spec) {
            check_success_policy(spec, policy, &path, errors);
        } else {
            let shown = go_shape::by_value(Some(policy), SUCCESS_POLICY);
            errors.invalid(&path, shown, "requires indexed completion mode");
        }
    }
    if let Some(policy) = spec.at(&["podReplacementPolicy"]).and_then(Value::as_str) {
        let failing = spec.at(&["podFailurePolicy"]).is_some();
        let allowed: &[&str] = if failing { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !allowed.contains(&policy) {
            errors.not_supported(&path.child("podReplacementPolicy"), policy, allowed);
        }
    }
    let template = &spec["template"];
    let at = path.child("template");
    pods::validate_template(template, old.map(|old| &old["template"]), &at, errors);
    let at = at.child("spec");
    let at = at.child("restartPolicy");
    match template.text_at(&["spec", "restartPolicy"]) {
        "" | "Always" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.at(&["podFailurePolicy"]).is_some() => {
            errors.invalid(&at, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        policy => errors.not_supported(&at, policy, &["OnFailure", "Never"]),
    }
}

fn check_completion_mode(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const INDEXED: &str = "when completion mode is Indexed";
    let number = |field: &str| spec.int_at(&[field]);
    let (parallelism, completions) = (number("parallelism"), number("completions"));
    let (failed, per_index) = (number("maxFailedIndexes"), number("backoffLimitPerIndex"));
    let mode = spec.at(&["completionMode"]).and_then(Value::as_str);
    match mode {
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(number) = number(field) {
                    errors.invalid(&path.child(field), number, "requires indexed completion mode");
                }
            }
            return;
        }
        Some("Indexed") => {}
        Some(mode) => return errors.not_supported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]),
    }
    let mut at_most = |field: &str, number: Option<i64>, most: i64, more: &str| {
        if let Some(number) = number.filter(|number| *number > most) {
            errors.invalid(&path.child(field), number, format!("must be less than or equal to {most}{more}"));
        }
    };
    at_most("parallelism", parallelism, MAX_PARALLELISM, &format!(" {INDEXED}"));
    at_most("maxFailedIndexes", failed, MAX_FAILED_INDEXES, "");
    let many = completions.is_some_and(|completions| completions > MANY_COMPLETIONS) && per_index.is_some();
    if many {
        let more = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most("parallelism", parallelism, MAX_OF_MANY, &more);
        at_most("maxFailedIndexes", failed, MAX_OF_MANY, &more);
    }
    if many && failed.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.required(&path.child("maxFailedIndexes"), detail);
    }
    match (completions, failed) {
        (None, _) => errors.required(&path.child("completions"), INDEXED),
        (Some(completions), Some(failed)) if failed > completions => {
            errors.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
        }
        _ => {}
    }
}

/// A word that must be one of these; Go prints the list of them with blanks between.
fn check_word(errors: &mut Errors, path: &Path<'_>, word: &str, allowed: &[&str]) {
    if word.is_empty() {
        let quoted: Vec<String> = allowed.iter().map(|word| format!("\"{word}\"")).collect();
        errors.required(path, format!("valid values: [{}]", quoted.join(" ")));
    } else if !allowed.contains(&word) {
        errors.not_supported(path, word, allowed);
    }
}

fn check_failure_policy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("rules");
    let rules = spec.list_at(&["podFailurePolicy", "rules"]);
    if rules.len() > MAX_FAILURE_RULES {
        errors.too_many(&list, rules.len(), MAX_FAILURE_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let action = rule.text_at(&["action"]);
        if action == "FailIndex" {
            if spec.at(&["backoffLimitPerIndex"]).is_none() {
                errors.invalid(&path.child("action"), action, "requires the backoffLimitPerIndex to be set");
            }
        } else {
            check_word(errors, &path.child("action"), action, &["Count", "FailIndex", "FailJob", "Ignore"]);
        }
        let codes = rule.at(&["onExitCodes"]);
        if let Some(codes) = codes {
            check_exit_codes(&spec["template"]["spec"], codes, &path.child("onExitCodes"), errors);
        }
        let patterns = rule.list_at(&["onPodConditions"]);
        let at = path.child("onPodConditions");
        if patterns.len() > MAX_CONDITION_PATTERNS {
            errors.too_many(&at, patterns.len(), MAX_CONDITION_PATTERNS);
        }
        for (j, pattern) in patterns.iter().enumerate() {
            let path = at.index(j);
            let kind = pattern.text_at(&["type"]);
            names::invalid_each(errors, &path.child("type"), kind, names::qualified_name(kind));
            check_word(errors, &path.child("status"), pattern.text_at(&["status"]), meta::CONDITION_STATUSES);
        }
        match (codes.is_some(), patterns.is_empty()) {
            (true, false) => {
                errors.invalid_unshown(&path, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                errors.invalid_unshown(&path, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn check_exit_codes(pod: &Value, codes: &Value, path: &Path<'_>, errors: &mut Errors) {
    let operator = codes.text_at(&["operator"]);
    check_word(errors, &path.child("operator"), operator, &["In", "NotIn"]);
    if let Some(name) = codes.at(&["containerName"]).and_then(Value::as_str) {
        let mut containers = pod.list_at(&["containers"]).iter().chain(pod.list_at(&["initContainers"]));
        if !containers.any(|container| container.text_at(&["name"]) == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, detail);
        }
    }
    let list = path.child("values");
    let values: Vec<i64> = codes.list_at(&["values"]).iter().filter_map(Value::as_i64).collect();
    let shown = || Raw(codes.at(&["values"]).map_or("null".to_owned(), Value::to_string));
    match values.len() {
        0 => errors.invalid(&list, shown(), "at least one value is required"),
        count if count > MAX_EXIT_CODES => errors.too_many(&list, count, MAX_EXIT_CODES),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&list.index(i), *value, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            errors.duplicate(&list.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&list, shown(), "must be ordered");
    }
}

fn check_success_policy(spec: &Value, policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("rules");
    let rules = policy.list_at(&["rules"]);
    if rules.is_empty() {
        errors.required(&list, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MAX_SUCCESS_RULES {
        errors.too_many(&list, rules.len(), MAX_SUCCESS_RULES);
    }
    let completions = spec.int_at(&["completions"]).unwrap_or_default();
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let indexes = rule.at(&["succeededIndexes"]).and_then(Value::as_str);
        let count = rule.int_at(&["succeededCount"]);
        if indexes.is_none() && count.is_none() {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let path = path.child("succeededIndexes");
            if indexes.len() > MAX_SUCCEEDED_INDEXES {
                errors.too_long(&path, MAX_SUCCEEDED_INDEXES);
            }
            match job_status::count_indexes(indexes, completions) {
                Ok(count) => total = count,
                Err(why) => errors.invalid(&path, indexes, format!("error parsing succeededIndexes: {why}")),
            }
        }
        if let Some(count) = count {
            let path = path.child("succeededCount");
            super::nonnegative(errors, &path, Some(count));
            if count > completions {
                let detail =
                    format!("must be less than or equal to {completions} (the number of specified completions)");
                errors.invalid(&path, count, detail);
            }
            if indexes.is_some() && count > total {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes \
                     field)"
                );
                errors.invalid(&path, count, detail);
            }
        }
    }
}

fn spec_warnings(spec: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let number = |field: &str| spec.int_at(&[field]).unwrap_or_default();
    let mut warnings = Vec::new();
    if is_indexed(spec) && number("completions") > MANY_COMPLETIONS && number("parallelism") > MAX_OF_MANY {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    let template = format!("{path}.template");
    warnings.extend(pods::template_warnings(&spec["template"], old.map(|old| &old["template"]), &template));
    warnings
}

pub struct Job;

impl Job {
    /// The pods of a job bear its name and uid, and are selected by them, unless the client chooses them itself.
    fn generate_selector(object: &mut Value) {
        if object.bool_at(&["spec", "manualSelector"]) == Some(true) {
            return;
        }
        let name = object.text_at(&["metadata", "name"]).to_owned();
        let uid = object.text_at(&["metadata", "uid"]).to_owned();
        let labels = object.make_map(&["spec", "template", "metadata", "labels"]);
        for (key, value) in [(OLD_NAME_LABEL, &name), (NAME_LABEL, &name), (OLD_UID_LABEL, &uid), (UID_LABEL, &uid)] {
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
        let wanted = object.make_map(&["spec", "selector", "matchLabels"]);
        wanted.entry(UID_LABEL).or_insert_with(|| uid.into());
    }

    /// A job without labels has those of its pods: also the ones that are only known when it is made, so that this is no
    /// default.
    fn take_labels(object: &mut Value) {
        if object.map_at(&["metadata", "labels"]).is_none_or(|map| map.is_empty())
            && let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned()
        {
            object.set(&["metadata", "labels"], labels);
        }
    }

    /// Jobs made before labels had a domain need only the old ones.
    fn check_generated_selector(object: &Value, with_domain: bool, errors: &mut Errors) {
        let Some(found) = object.at(&["spec", "selector"]) else { return };
        if object.bool_at(&["spec", "manualSelector"]) == Some(true) {
            return;
        }
        let (name, uid) = (object.text_at(&["metadata", "name"]), object.text_at(&["metadata", "uid"]));
        let spec = Path::new("spec");
        let template = spec.child("template");
        let metadata = template.child("metadata");
        let path = metadata.child("labels");
        let labels = object.at(&["spec", "template", "metadata", "labels"]);
        let mut expected = vec![(OLD_UID_LABEL, uid), (OLD_NAME_LABEL, name)];
        if with_domain {
            expected.extend([(UID_LABEL, uid), (NAME_LABEL, name)]);
        }
        for (key, value) in &expected {
            let detail = format!("must be '{value}'");
            match labels.and_then(|labels| labels.get(key)) {
                None => errors.required(&path.key(key), detail),
                Some(found) if found != value => {
                    errors.invalid(&path.key(key), labels.unwrap_or(&Value::Null), detail);
                }
                Some(_) => {}
            }
        }
        let expected: Value = expected.into_iter().collect();
        if selector::fits(Some(found), Some(&expected)) == Some(false) {
            errors.invalid(&spec.child("selector"), selector::shown(Some(found)), "`selector` not auto-generated");
        }
    }

    fn check_own_spec(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        check_spec(spec, old.map(|old| &old["spec"]), &path, errors);
        let found = spec.at(&["selector"]);
        match found {
            None => errors.required(&path.child("selector"), ""),
            Some(found) => meta::label_selector(errors, &path.child("selector"), found),
        }
        let template = &spec["template"];
        let fits = selector::fits(found, template.at(&["metadata", "labels"]));
        check_labels(errors, &path.child("template"), fits, Some(template));
    }

    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let label =
            |key: &str| old.is_none_or(|old| old.at(&["spec", "template", "metadata", "labels", key]).is_some());
        Self::check_generated_selector(object, label(NAME_LABEL) && label(UID_LABEL), errors);
        Self::check_own_spec(object, old, errors);
        let completions = object.int_at(&["spec", "completions"]).unwrap_or_default();
        if is_indexed(&object["spec"]) && completions > 0 {
            // The last pod's host name is the longest.
            let name = object.text_at(&["metadata", "name"]);
            let host = format!("{name}-{}", completions - 1);
            if !names::dns_label(&host).is_empty() {
                let metadata = Path::new("metadata");
                let detail = format!("will not able to create pod with invalid DNS label: {host}");
                errors.invalid(&metadata.child("name"), name, detail);
            }
        }
    }

    fn check_completions(new: &Value, old: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let path = spec.child("completions");
        let (now, before) = (new.at(&["completions"]), old.at(&["completions"]));
        if !is_indexed(new) {
            return meta::immutable(errors, &path, now, before);
        }
        if let Some(now) = now.filter(|now| Some(*now) != before)
            && new.at(&["parallelism"]) != Some(now)
        {
            errors.invalid(&path, now, "can only be modified in tandem with spec.parallelism");
        }
    }

    /// The template stays, but while a job is suspended and none of its pods is there, where its pods may run and what
    /// they ask for may change.
    fn check_template_change(object: &Value, old: &Value, errors: &mut Errors) {
        let suspended = old.bool_at(&["spec", "suspend"]) == Some(true)
            && old.int_at(&["status", "active"]).unwrap_or_default() == 0
            && (old.at(&["status", "startTime"]).is_none() || job_status::has_condition(old, "Suspended"));
        let spec = Path::new("spec");
        let (new, old) = (&object["spec"]["template"], &old["spec"]["template"]);
        if !suspended {
            if new != old {
                errors.invalid(&spec.child("template"), shown_template(Some(new)), meta::FIELD_IMMUTABLE);
            }
            return;
        }
        let mut expected = old["spec"].clone();
        let new = &new["spec"];
        let mut allow = |path: &[&str]| match new.at(path) {
            Some(value) => expected.set(path, value.clone()),
            None => drop(expected.take_at(path)),
        };
        for path in [&["nodeSelector"][..], &["tolerations"], &["schedulingGates"], &["affinity", "nodeAffinity"]] {
            allow(path);
        }
        if new.at(&["affinity"]).is_some() {
            expected.make_map(&["affinity"]);
        } else if expected.map_at(&["affinity"]).is_some_and(|map| map.is_empty()) {
            expected.take_at(&["affinity"]);
        }
        for list in ["containers", "initContainers"] {
            let theirs = new.list_at(&[list]);
            if theirs.len() != expected.list_at(&[list]).len() {
                continue;
            }
            for (ours, theirs) in expected.items_mut(&[list]).zip(theirs) {
                if ours.text_at(&["name"]) == theirs.text_at(&["name"]) {
                    copy_field(ours, theirs, "resources");
                }
            }
        }
        if *new != expected {
            errors.invalid(&spec.child("template.spec"), shown_spec(Some(new)), meta::FIELD_IMMUTABLE);
        }
    }
}

impl Kind for Job {
    fn group(&self) -> &'static str {
        "batch"
    }

    fn kind(&self) -> &'static str {
        "Job"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec", "template"]);
        let Some(spec) = object.at_mut(&["spec"]) else { return };
        if spec.at(&["parallelism"]).is_none() {
            spec.set_default("completions", 1);
        }
        spec.set_default("parallelism", 1);
        let unlimited = spec.at(&["backoffLimitPerIndex"]).is_some();
        spec.set_default("backoffLimit", if unlimited { i64::from(i32::MAX) } else { 6 });
        spec.set_default("completionMode", "NonIndexed");
        spec.set_default("suspend", false);
        spec.set_default("manualSelector", false);
        let failing = spec.at(&["podFailurePolicy"]).is_some();
        spec.set_default("podReplacementPolicy", if failing { "Failed" } else { "TerminatingOrFailed" });
        default_failure_policy(spec);
        default_template(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        super::prepare_create(object);
        Self::generate_selector(object);
        Self::take_labels(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        super::prepare_update(object, old);
        Self::take_labels(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
    }

    /// Upstream validates the spec once as that of a job and once as a change of it, and reports what it finds twice.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check(object, Some(old), errors);
        Self::check_own_spec(object, Some(old), errors);
        let (new, before) = (&object["spec"], &old["spec"]);
        Self::check_completions(new, before, errors);
        let spec = Path::new("spec");
        let mut immutable = |field: &str, shown: fn(Option<&Value>) -> Raw| {
            if new.at(&[field]) != before.at(&[field]) {
                errors.invalid(&spec.child(field), shown(new.at(&[field])), meta::FIELD_IMMUTABLE);
            }
        };
        let plain = |value: Option<&Value>| Raw(value.map_or("null".to_owned(), Value::to_string));
        immutable("selector", selector::shown);
        immutable("completionMode", plain);
        immutable("podFailurePolicy", |value| go_shape::pointer(value, FAILURE_POLICY));
        immutable("backoffLimitPerIndex", plain);
        immutable("managedBy", plain);
        immutable("successPolicy", |value| go_shape::pointer(value, SUCCESS_POLICY));
        Self::check_template_change(object, old, errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        job_status::check_change(object, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let name = name_warning(object).filter(|_| old.is_none());
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        let spec = moved.then(|| spec_warnings(&object["spec"], old.map(|old| &old["spec"]), "spec"));
        name.into_iter().chain(spec.into_iter().flatten()).collect()
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("status.successful", |object| object.int_at(&["status", "succeeded"]).unwrap_or_default().to_string())]
    }
}

pub struct CronJob;

/// The controller makes the names of jobs from that of the cron job and the time: that much is left for it.
const MAX_CRON_NAME: usize = 52;

impl CronJob {
    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let schedule = spec.text_at(&["schedule"]);
        let zone = spec.at(&["timeZone"]).and_then(Value::as_str);
        let at = path.child("schedule");
        if schedule.is_empty() {
            errors.required(&at, "");
        } else {
            if let Err(why) = cron::check_schedule(schedule) {
                errors.invalid(&at, schedule, why);
            }
            let had_zone = old.is_some_and(|old| old.text_at(&["spec", "schedule"]).contains("TZ"));
            if schedule.contains("TZ") && !had_zone {
                errors.invalid(&at, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            } else if schedule.contains("TZ") && zone.is_some() {
                errors.invalid(&at, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
            }
        }
        nonnegative_fields(
            errors,
            &path,
            spec,
            &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
        );
        if let Some(zone) = zone.filter(|zone| old.is_none_or(|old| old.text_at(&["spec", "timeZone"]) != *zone)) {
            Self::check_zone(zone, &path.child("timeZone"), errors);
        }
        let policies = &["Allow", "Forbid", "Replace"];
        match spec.text_at(&["concurrencyPolicy"]) {
            "" => errors.required(&path.child("concurrencyPolicy"), ""),
            policy if !policies.contains(&policy) => {
                errors.not_supported(&path.child("concurrencyPolicy"), policy, policies);
            }
            _ => {}
        }
        let template = path.child("jobTemplate");
        let path = template.child("spec");
        let job = &spec["jobTemplate"]["spec"];
        check_spec(job, old.map(|old| &old["spec"]["jobTemplate"]["spec"]), &path, errors);
        if let Some(found) = job.at(&["selector"]) {
            errors.invalid(&path.child("selector"), selector::shown(Some(found)), "`selector` will be auto-generated");
        }
        if job.bool_at(&["manualSelector"]) == Some(true) {
            errors.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
        }
    }

    fn check_zone(zone: &str, path: &Path<'_>, errors: &mut Errors) {
        if zone.is_empty() {
            return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
        }
        let unknown = || format!("unknown time zone {zone}");
        if !cron::is_time_zone_form(zone) {
            return errors.invalid(path, zone, unknown());
        }
        if zone.eq_ignore_ascii_case("Local") {
            let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.invalid(path, zone, detail);
        }
        if !cron::is_time_zone(zone) {
            errors.invalid(path, zone, unknown());
        }
    }
}

fn drop_disabled_fields(object: &mut Value) {
    if let Some(template) = object.at_mut(&["spec", "jobTemplate", "spec", "template"]) {
        pods::drop_disabled_fields(template);
    }
}

impl Kind for CronJob {
    fn group(&self) -> &'static str {
        "batch"
    }

    fn kind(&self) -> &'static str {
        "CronJob"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec", "jobTemplate", "spec"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            if spec.text_at(&["concurrencyPolicy"]).is_empty() {
                spec.set(&["concurrencyPolicy"], "Allow");
            }
            spec.set_default("suspend", false);
            spec.set_default("successfulJobsHistoryLimit", 3);
            spec.set_default("failedJobsHistoryLimit", 1);
        }
        if let Some(job) = object.at_mut(&["spec", "jobTemplate", "spec"]) {
            default_failure_policy(job);
            default_template(job);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        reset_status(object);
        drop_disabled_fields(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
        drop_disabled_fields(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
        let name = object.text_at(&["metadata", "name"]);
        if name.len() > MAX_CRON_NAME {
            let metadata = Path::new("metadata");
            let detail = format!("must be no more than {MAX_CRON_NAME} characters");
            errors.invalid(&metadata.child("name"), name, detail);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check(object, Some(old), errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = name_warning(object).filter(|_| old.is_none()).into_iter().collect();
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        let job = |object: &'_ Value| object["spec"]["jobTemplate"]["spec"].clone();
        if moved {
            warnings.extend(spec_warnings(&job(object), old.map(job).as_ref(), "spec.jobTemplate.spec"));
        }
        if old.is_some() && object.text_at(&["spec", "schedule"]).contains("TZ") {
            warnings.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(spec: Value) -> Value {
        let mut job = json!({"metadata": {"name": "a", "uid": "u"}, "spec": spec});
        job["spec"]["template"] =
            json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}});
        Job.default(&mut job);
        Job.prepare_create(&mut job);
        job
    }

    fn said(kind: &dyn Kind, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        kind.validate(object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_pods_of_a_job_are_its_own() {
        let mut own = job(json!({}));
        assert_eq!(own["spec"]["selector"]["matchLabels"], json!({UID_LABEL: "u"}));
        assert_eq!(own["spec"]["template"]["metadata"]["labels"][OLD_NAME_LABEL], "a");
        assert_eq!(own["spec"]["completions"], 1);
        own["spec"]["template"]["metadata"]["labels"][NAME_LABEL] = "b".into();
        let said = said(&Job, &own);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("spec.template.metadata.labels[batch.kubernetes.io/job-name]: Invalid value: {"));
    }

    #[test]
    fn work_queues_have_no_completions() {
        assert!(job(json!({"parallelism": 3}))["spec"].get("completions").is_none());
        assert_eq!(job(json!({"completions": 3}))["spec"]["parallelism"], 1);
        let limit = &job(json!({"completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}))["spec"];
        assert_eq!(limit["backoffLimit"], i64::from(i32::MAX));
    }

    #[test]
    fn a_suspended_job_may_be_placed_anew() {
        let old = job(json!({"suspend": true}));
        let run = |change: fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            let mut errors = Errors::default();
            Job::check_template_change(&new, &old, &mut errors);
            errors.0.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert!(run(|job| job["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"})).is_empty());
        assert!(
            run(|job| job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}}))
                .is_empty()
        );
        assert_eq!(
            run(|job| job["spec"]["template"]["spec"]["containers"][0]["image"] = "y".into()),
            ["spec.template.spec"]
        );
    }
}
