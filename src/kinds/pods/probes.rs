//! What a running container is asked and told: probes, and the hooks of its life.

use serde_json::Value;

use super::containers::Pod;
use crate::field::{Errors, Path};
use crate::kinds::names;
use crate::object::Fields;

/// Probes and hooks of a container that keeps running.
pub fn check_running(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let lifecycle = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.at(&["lifecycle", hook]) {
            check_handler(handler, pod, &lifecycle.child(hook), errors);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.at(&[kind]) {
            check_probe(kind, probe, pod, &path.child(kind), errors);
        }
    }
}

fn check_probe(kind: &str, probe: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    check_handler(probe, pod, path, errors);
    let number = |field: &str| probe.int_at(&[field]).unwrap_or_default();
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if number(field) < 0 {
            errors.invalid(&path.child(field), number(field), "must be greater than or equal to 0");
        }
    }
    let grace = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.int_at(&["terminationGracePeriodSeconds"]) {
        if seconds <= 0 {
            errors.invalid(&grace, seconds, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            errors.invalid(&grace, seconds, "must not be set for readinessProbes");
        }
    }
    if kind != "readinessProbe" && number("successThreshold") != 1 {
        errors.invalid(&path.child("successThreshold"), number("successThreshold"), "must be 1");
    }
}

/// What a probe or a hook does: exactly one thing.
fn check_handler(handler: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.at(&[kind]) else { continue };
        let at = path.child(kind);
        if found {
            errors.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if action.list_at(&["command"]).is_empty() => errors.required(&at.child("command"), ""),
            "exec" => {}
            "httpGet" => check_http_get(action, &at, errors),
            "sleep" => check_sleep(action, pod, &at, errors),
            _ => check_port(action, &at.child("port"), errors),
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn check_http_get(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    if action.text_at(&["path"]).is_empty() {
        errors.required(&path.child("path"), "");
    }
    check_port(action, &path.child("port"), errors);
    let scheme = action.text_at(&["scheme"]);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in action.list_at(&["httpHeaders"]) {
        let name = header.text_at(&["name"]);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
                          regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&path.child("httpHeaders"), name, detail);
        }
    }
}

fn check_port(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    match action.at(&["port"]) {
        Some(Value::String(name)) => names::invalid_each(errors, path, name, names::port_name(name)),
        number => names::port_number(errors, path, number.and_then(Value::as_i64).unwrap_or_default()),
    }
}

fn check_sleep(action: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let seconds = action.int_at(&["seconds"]).unwrap_or_default();
    if let Some(grace) = pod.grace_period().filter(|grace| seconds < 0 || seconds > *grace) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(path, seconds, detail);
    }
}
