//! CertificateSigningRequest: asked for by one, approved by another, signed by a third.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::meta;
use super::names;
use super::{Kind, NameForm, Selectable, copy_field, reset_status};
use crate::field::{Errors, Path, Raw, go_quote};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&CertificateSigningRequest];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Conditions that, once there, stay, and are never anything but true.
const FINAL: &[&str] = &["Approved", "Denied", "Failed"];
/// Those of them that only the approval subresource sets.
const DECISIONS: &[&str] = &["Approved", "Denied"];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MIN_EXPIRATION: i64 = 600;

pub struct CertificateSigningRequest;

/// The doors through which a request changes, and what each may change.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Main,
    Status,
    Approval,
}

impl CertificateSigningRequest {
    /// Who asks, as the server knows him: nothing that a client could say himself.
    pub fn set_requester(object: &mut Value, name: &str, uid: &str, groups: &[String], extra: Value) {
        object.set(&["spec", "username"], name);
        object.set(&["spec", "uid"], uid);
        object.set(&["spec", "groups"], groups);
        object.set(&["spec", "extra"], extra);
    }

    /// The approval subresource changes conditions only.
    pub fn prepare_approval(object: &mut Value, old: &Value) {
        date_conditions(object, old);
        let conditions = object.at(&["status", "conditions"]).cloned();
        copy_field(object, old, "spec");
        copy_field(object, old, "status");
        match conditions {
            Some(conditions) => object.set(&["status", "conditions"], conditions),
            None => drop(object.take_at(&["status", "conditions"])),
        }
    }

    pub fn validate_approval(object: &Value, old: &Value, errors: &mut Errors) {
        check_change(object, old, Door::Approval, errors);
    }
}

impl Kind for CertificateSigningRequest {
    fn group(&self) -> &'static str {
        "certificates.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "CertificateSigningRequest"
    }

    fn name_form(&self) -> NameForm {
        NameForm::PathSegment
    }

    fn prepare_create(&self, object: &mut Value) {
        for field in ["username", "uid", "groups", "extra"] {
            object.take_at(&["spec", field]);
        }
        reset_status(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        copy_field(object, old, "status");
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        for decision in DECISIONS {
            keep_conditions(object, old, decision);
        }
        date_conditions(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_change(object, old, Door::Main, errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_change(object, old, Door::Status, errors);
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("spec.signerName", |object| object.text_at(&["spec", "signerName"]).to_owned())]
    }
}

fn conditions_of<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = object.list_at(&["status", "conditions"]).iter();
    all.filter(|condition| condition.text_at(&["type"]) == kind).collect()
}

/// The conditions of one type stay as they were, where as many of them are there.
fn keep_conditions(object: &mut Value, old: &Value, kind: &str) {
    let before = conditions_of(old, kind);
    if before.len() != conditions_of(object, kind).len() {
        return;
    }
    let after = object.items_mut(&["status", "conditions"]).filter(|condition| condition.text_at(&["type"]) == kind);
    for (condition, kept) in after.zip(before) {
        *condition = kept.clone();
    }
}

/// Times that a client left out: now, or since when the condition has been as it is.
fn date_conditions(object: &mut Value, old: &Value) {
    let now = meta::now();
    for condition in object.items_mut(&["status", "conditions"]) {
        condition.set_default("lastUpdateTime", now.as_str());
        let same = |other: &&Value| ["type", "status"].iter().all(|f| other.text_at(&[f]) == condition.text_at(&[f]));
        let since = old.list_at(&["status", "conditions"]).iter().find(same);
        let since = since.and_then(|other| other.at(&["lastTransitionTime"])).cloned();
        condition.set_default("lastTransitionTime", since.unwrap_or_else(|| json!(now)));
    }
}

fn has_duplicates<'a>(mut values: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = Vec::new();
    values.any(|value| {
        let again = seen.contains(&value);
        seen.push(value);
        again
    })
}

/// The whole object. What `old` already got wrong is let be.
fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = Path::new("spec");
    if let Err(why) = check_request(object.text_at(&["spec", "request"])) {
        let shown = object.at(&["spec", "request"]).map_or_else(|| "null".to_owned(), Value::to_string);
        errors.invalid(&spec.child("request"), Raw(shown), why);
    }
    let usages: Vec<&str> = object.list_at(&["spec", "usages"]).iter().filter_map(Value::as_str).collect();
    let list = spec.child("usages");
    let before: Vec<&str> =
        old.map(|old| old.list_at(&["spec", "usages"])).unwrap_or_default().iter().filter_map(Value::as_str).collect();
    if usages.is_empty() {
        errors.required(&list, "");
    }
    if before.iter().all(|usage| USAGES.contains(usage)) {
        for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(usage)) {
            errors.not_supported(&list.index(i), *usage, USAGES);
        }
    }
    if !has_duplicates(before.iter().copied()) {
        for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages[..*i].contains(usage)) {
            errors.duplicate(&list.index(i), *usage);
        }
    }
    let signer = object.text_at(&["spec", "signerName"]);
    if signer == LEGACY_SIGNER && old.is_none_or(|old| old.text_at(&["spec", "signerName"]) != LEGACY_SIGNER) {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.invalid(&spec.child("signerName"), signer, detail);
    } else {
        check_signer_name(signer, &spec.child("signerName"), errors);
    }
    if let Some(seconds) = object.int_at(&["spec", "expirationSeconds"]).filter(|n| *n < MIN_EXPIRATION) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&spec.child("expirationSeconds"), seconds, detail);
    }
    check_conditions(object, old, errors);
    let certificate = object.text_at(&["status", "certificate"]);
    let known = old.map(|old| old.text_at(&["status", "certificate"]));
    let kept = known == Some(certificate) || known.is_some_and(|known| check_certificate(known).is_err());
    if !kept && let Err(why) = check_certificate(certificate) {
        let status = Path::new("status");
        errors.invalid(&status.child("certificate"), "<certificate data>", why);
    }
}

fn check_conditions(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let status = Path::new("status");
    let list = status.child("conditions");
    let conditions = object.list_at(&["status", "conditions"]);
    let before = old.map(|old| old.list_at(&["status", "conditions"])).unwrap_or_default();
    let has = |conditions: &[Value], kind: &str| conditions.iter().any(|c| c.text_at(&["type"]) == kind);
    for (i, condition) in conditions.iter().enumerate() {
        let path = list.index(i);
        let kind = condition.text_at(&["type"]);
        if kind.is_empty() && !has(before, "") {
            errors.required(&path.child("type"), "");
        }
        let known: &[&str] = if FINAL.contains(&kind) { &["True"] } else { meta::CONDITION_STATUSES };
        match condition.text_at(&["status"]) {
            "" => errors.required(&path.child("status"), ""),
            value if !known.contains(&value) => errors.not_supported(&path.child("status"), value, known),
            _ => {}
        }
        let other = DECISIONS.iter().find(|other| **other != kind && DECISIONS.contains(&kind));
        if other.is_some_and(|other| has(&conditions[..i], other)) && !DECISIONS.iter().all(|d| has(before, d)) {
            errors.invalid(&list, kind, "Approved and Denied conditions are mutually exclusive");
        }
        let repeated = has_duplicates(before.iter().map(|condition| condition.text_at(&["type"])));
        if has(&conditions[..i], kind) && !repeated {
            errors.duplicate(&path.child("type"), kind);
        }
    }
}

fn check_change(object: &Value, old: &Value, door: Door, errors: &mut Errors) {
    check(object, Some(old), errors);
    let status = Path::new("status");
    let path = status.child("conditions");
    for kind in FINAL.iter().filter(|kind| conditions_of(object, kind).len() < conditions_of(old, kind).len()) {
        errors.forbidden(&path, format!("updates may not remove a condition of type {}", go_quote(kind)));
    }
    if door != Door::Approval {
        for kind in DECISIONS.iter().filter(|kind| conditions_of(object, kind).len() > conditions_of(old, kind).len()) {
            errors.forbidden(&path, format!("updates may not add a condition of type {}", go_quote(kind)));
        }
    }
    let certificate = ["status", "certificate"];
    if object.text_at(&certificate) != old.text_at(&certificate) {
        if door != Door::Status {
            errors.forbidden(&status.child("certificate"), "updates may not set certificate content");
        } else if !old.text_at(&certificate).is_empty() {
            errors.forbidden(&status.child("certificate"), "updates may not modify existing certificate content");
        }
    }
}

const MAX_DOMAIN: usize = 253;
const MAX_SIGNER: usize = 2 * MAX_DOMAIN + 63 + 2;

/// `<domain>/<path>`.
pub fn check_signer_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, detail);
    };
    if domain.len() > MAX_DOMAIN {
        errors.too_long(path, MAX_DOMAIN);
    }
    let labels = |text: &str, form: names::Check, errors: &mut Errors| {
        for label in text.split('.') {
            for message in form(label) {
                errors.invalid(path, text, format!("validating label {}: {message}", go_quote(label)));
            }
        }
    };
    labels(domain, names::dns_label, errors);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(rest, names::dns_subdomain, errors);
    if name.len() > MAX_SIGNER {
        errors.too_long(path, MAX_SIGNER);
    }
}

/// A block of PEM text.
struct Pem<'a> {
    label: &'a str,
    headers: bool,
    bytes: Vec<u8>,
}

/// The first block of a text, and what comes after it. What can't be read is skipped, as Go does.
fn next_pem(text: &str) -> Option<(Pem<'_>, &str)> {
    let mut rest = text;
    loop {
        let at = rest.find("-----BEGIN ")?;
        let starts_line = at == 0 || rest.as_bytes()[at - 1] == b'\n';
        let after = &rest[at + "-----BEGIN ".len()..];
        rest = after;
        if !starts_line {
            continue;
        }
        let Some((first, body)) = after.split_once('\n') else { continue };
        let Some(label) = first.trim_end().strip_suffix("-----") else { continue };
        let end = format!("-----END {label}-----");
        let Some(stop) = body.find(&end) else { continue };
        let (content, remainder) = (&body[..stop], &body[stop + end.len()..]);
        let headers = content.lines().take_while(|line| line.contains(':')).count();
        let data: String = content.lines().skip(headers).flat_map(str::split_whitespace).collect();
        let Ok(bytes) = STANDARD.decode(data) else { continue };
        return Some((Pem { label, headers: headers > 0, bytes }, remainder));
    }
}

fn decoded(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).unwrap_or_default()).unwrap_or_default()
}

fn request_der(base64: &str) -> Result<Vec<u8>, String> {
    let text = decoded(base64);
    let pem = next_pem(&text).map(|(pem, _)| pem).filter(|pem| pem.label == "CERTIFICATE REQUEST");
    pem.map(|pem| pem.bytes).ok_or_else(|| "PEM block type must be CERTIFICATE REQUEST".to_owned())
}

fn parse_request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    let parsed = X509CertificationRequest::from_der(der);
    parsed.map(|(_, request)| request).map_err(|_| "x509: malformed certificate request".to_owned())
}

/// The groups that the certificate would make its holder a member of.
pub fn requested_groups(object: &Value) -> Result<Vec<String>, String> {
    let der = request_der(object.text_at(&["spec", "request"]))?;
    let request = parse_request(&der)?;
    let organizations = request.certification_request_info.subject.iter_organization();
    Ok(organizations.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect())
}

/// A certificate request that its own key has signed.
fn check_request(base64: &str) -> Result<(), String> {
    let der = request_der(base64)?;
    let request = parse_request(&der)?;
    request.verify_signature().map_err(|_| {
        let algorithm = request.certification_request_info.subject_pki.algorithm.algorithm.to_id_string();
        let words = match algorithm.as_str() {
            "1.2.840.113549.1.1.1" => "crypto/rsa: verification error",
            "1.3.101.112" => "x509: Ed25519 verification failure",
            _ => "x509: ECDSA verification failure",
        };
        words.to_owned()
    })
}

/// Nothing, or certificates and nothing else.
fn check_certificate(base64: &str) -> Result<(), String> {
    let text = decoded(base64);
    if base64.is_empty() {
        return Ok(());
    }
    let mut rest = text.as_str();
    let mut found = false;
    while let Some((pem, remainder)) = next_pem(rest) {
        if pem.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {}", go_quote(pem.label)));
        }
        if pem.headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        if pem.bytes.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        X509Certificate::from_der(&pem.bytes).map_err(|_| "x509: malformed certificate".to_owned())?;
        found = true;
        rest = remainder;
    }
    if found { Ok(()) } else { Err("must contain at least one CERTIFICATE PEM block".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
        STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
    }

    fn csr(conditions: &[&str]) -> Value {
        let condition = |kind: &&str| json!({"type": kind, "status": "True"});
        let conditions: Vec<Value> = conditions.iter().map(condition).collect();
        json!({
            "spec": {"request": request(), "signerName": "example.com/s", "usages": ["any"]},
            "status": {"conditions": conditions},
        })
    }

    #[test]
    fn a_request_is_signed_by_its_own_key() {
        assert_eq!(check_request(&request()), Ok(()));
        let mut bytes = STANDARD.decode(request()).unwrap();
        let at = bytes.len() - 60;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(check_request(&STANDARD.encode(bytes)).is_err());
        assert_eq!(check_request(""), Err("PEM block type must be CERTIFICATE REQUEST".to_owned()));
        assert_eq!(check_certificate("AAEC"), Err("must contain at least one CERTIFICATE PEM block".to_owned()));
    }

    #[test]
    fn a_decision_is_made_once_by_approval() {
        let old = csr(&[]);
        let mut new = old.clone();
        new["status"]["conditions"] =
            json!([{"type": "Denied", "status": "True"}, {"type": "Approved", "status": "True"}]);
        CertificateSigningRequest::prepare_approval(&mut new, &old);
        assert!(new["status"]["conditions"][0]["lastTransitionTime"].is_string());
        let mut errors = Errors::default();
        CertificateSigningRequest::validate_approval(&new, &old, &mut errors);
        assert_eq!(errors.0.len(), 1);
        assert_eq!(errors.0[0].field, "status.conditions");
        let mut errors = Errors::default();
        CertificateSigningRequest.validate_status_update(&new, &old, &mut errors);
        assert_eq!(errors.0.len(), 3);
        let mut errors = Errors::default();
        CertificateSigningRequest::validate_approval(&old, &new, &mut errors);
        assert_eq!(errors.0.len(), 2);
    }

    #[test]
    fn signers_have_a_domain_and_a_path() {
        let of = |name: &str| {
            let mut errors = Errors::default();
            check_signer_name(name, &Path::new("s"), &mut errors);
            errors.0.len()
        };
        assert_eq!(of("kubernetes.io/kube-apiserver-client"), 0);
        assert_eq!((of("a/b"), of("a.b/c/d"), of("A.b/_")), (1, 1, 2));
    }
}
