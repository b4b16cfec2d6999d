//! The body of a write: which kind it says it is, and whether that may stand where it was sent.

use serde_json::Value;

use super::decode::{Decoded, Error, decode};
use super::json::{self, Syntax};
use super::yaml::from_yaml;
use super::{decode_untyped, protobuf};
use crate::schema::{Node, builtin};
use crate::status::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// The kind that a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'t> {
    pub group: &'t str,
    pub version: &'t str,
    pub kind: &'t str,
}

impl Target<'_> {
    /// Whether an object says that it is of this kind, or says nothing.
    pub(crate) fn is_said_by(&self, object: &Value) -> bool {
        says(object, *self)
    }

    pub(crate) fn name_kind(&self, object: &mut Value) {
        name_kind(object, *self);
    }
}

/// Reads the body of a built-in kind: the canonical object, with its `apiVersion` and `kind`, and the warnings.
pub fn decode_body(
    target: Target<'_>,
    media: Media,
    body: &[u8],
    validation: Validation,
) -> Result<(Value, Vec<String>), ApiError> {
    let unrecognized = |why: &dyn std::fmt::Display| {
        let kind = target.kind;
        let shown = summary(body);
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
    };
    let node = builtin().kind(target.group, target.version, target.kind);
    let node = node.ok_or_else(|| ApiError::internal(format!("no schema for kind {:?}", target.kind)))?;
    if media == Media::Protobuf {
        let envelope = protobuf::unwrap(body).map_err(|why| unrecognized(&why))?;
        let meta = Meta { api_version: envelope.api_version, kind: envelope.kind };
        let actual = meta.actual(target).map_err(|why| unrecognized(&why))?;
        let other = actual.node(target, node).map_err(|why| actual.cannot(target, &why))?;
        let decoded = protobuf::decode(other, &envelope.raw);
        let mut value = decoded.map_err(|why| actual.cannot(target, &why))?;
        actual.check(target)?;
        name_kind(&mut value, target);
        return Ok((value, Vec::new()));
    }
    let yaml = match media {
        Media::Yaml => Some(from_yaml(body).map_err(|why| unrecognized(&why))?),
        _ => None,
    };
    let text = yaml.as_ref().map(|yaml| yaml.value.to_string().into_bytes());
    let text = text.as_deref().unwrap_or(body);
    let decoded = decode(node, text);
    // Almost every body says that it is of the kind that the path takes; only others are looked at again.
    let fits = decoded.as_ref().is_ok_and(|decoded| says(&decoded.value, target));
    let decoded = if fits {
        decoded
    } else {
        let meta = Meta::read(text).map_err(|why| unrecognized(&why))?;
        let actual = meta.actual(target).map_err(|why| unrecognized(&why))?;
        let other = actual.node(target, node).map_err(|why| actual.cannot(target, &why))?;
        if let Err(Error::Syntax(why) | Error::Value(why)) = decode(other, text) {
            return Err(actual.cannot(target, &why));
        }
        actual.check(target)?;
        decoded
    };
    let mut decoded = decoded.map_err(|why| Actual::of(target).cannot(target, &why))?;
    let repeated = yaml.map(|yaml| yaml.repeated).unwrap_or_default();
    let findings = match validation {
        Validation::Ignore => Vec::new(),
        Validation::Warn => repeated.into_iter().chain(decoded.findings).collect(),
        Validation::Strict => {
            let lines: Vec<String> = repeated.iter().map(|line| format!("  {line}")).collect();
            let repeated = (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:\n{}", lines.join("\n")));
            let all: Vec<String> = repeated.into_iter().chain(decoded.findings).collect();
            if !all.is_empty() {
                let why = format!("strict decoding error: {}", all.join(", "));
                return Err(Actual::of(target).cannot(target, &why));
            }
            Vec::new()
        }
    };
    name_kind(&mut decoded.value, target);
    Ok((decoded.value, findings))
}

/// Reads the text that a patch made of an object, with the errors that Go's decoder then has.
pub(crate) fn decode_again(target: Target<'_>, node: Node<'_>, text: &[u8]) -> Result<Decoded, String> {
    let decoded = decode(node, text);
    let mut decoded = match decoded {
        Ok(decoded) if says(&decoded.value, target) => decoded,
        decoded => {
            let actual = Meta::read(text)?.actual(target)?;
            decode(actual.node(target, node)?, text).map_err(|why| why.to_string())?;
            if let Some(why) = actual.unconvertible(target) {
                return Err(why);
            }
            decoded.map_err(|why| why.to_string())?
        }
    };
    name_kind(&mut decoded.value, target);
    Ok(decoded)
}

fn name_kind(value: &mut Value, target: Target<'_>) {
    if let Value::Object(map) = value {
        map.insert("kind".into(), target.kind.into());
        map.insert("apiVersion".into(), joined(target.group, target.version).into());
    }
}

fn joined(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn says(value: &Value, target: Target<'_>) -> bool {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    let version_fits = api_version.is_empty()
        || match api_version.split_once('/') {
            Some((group, version)) => group == target.group && version == target.version,
            None => target.group.is_empty() && api_version == target.version,
        };
    version_fits && (kind.is_empty() || kind == target.kind)
}

/// The first of a body that can't be read: as text where it may be JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const MOST: usize = 30;
    let more = if body.len() > MOST { " ..." } else { "" };
    let start = &body[..body.len().min(MOST)];
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => {
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

/// What a body says of itself.
#[derive(Default)]
pub(crate) struct Meta {
    pub api_version: String,
    pub kind: String,
}

impl Meta {
    pub fn read(text: &[u8]) -> Result<Meta, String> {
        let problem = |why: &dyn std::fmt::Display| format!("couldn't get version/kind; json parse error: {why}");
        let value = decode_untyped(text).map_err(|Syntax(why)| problem(&why))?;
        let map = match &value {
            Value::Null => return Ok(Meta::default()),
            Value::Object(map) => map,
            other => {
                let ty = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
                let what = json::kind_of(other);
                return Err(problem(&format!("json: cannot unmarshal {what} into Go value of type {ty}")));
            }
        };
        let text = |name: &str| match map.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => {
                let what = json::kind_of(other);
                Err(problem(&format!("json: cannot unmarshal {what} into Go struct field .{name} of type string")))
            }
        };
        Ok(Meta { api_version: text("apiVersion")?, kind: text("kind")? })
    }

    /// With what the path takes where the body says nothing.
    pub fn actual(self, target: Target<'_>) -> Result<Actual, String> {
        let mut parts = self.api_version.split('/');
        let (group, version) = match (parts.next(), parts.next(), parts.next()) {
            (Some(version), None, _) => ("", version),
            (Some(group), Some(version), None) => (group, version),
            _ => return Err(format!("unexpected GroupVersion string: {}", self.api_version)),
        };
        let (group, version) =
            if group.is_empty() && version.is_empty() { (target.group, target.version) } else { (group, version) };
        let kind = if self.kind.is_empty() { target.kind.to_owned() } else { self.kind };
        Ok(Actual { group: group.to_owned(), version: version.to_owned(), kind })
    }
}

/// The kind that a body is of.
pub(crate) struct Actual {
    group: String,
    version: String,
    pub kind: String,
}

/// Versions that are no longer served but still known, and the groups that have their kinds now; with a slash, only that
/// kind.
const OLD: &[(&str, &str, &[&str])] = &[
    ("extensions", "v1beta1", &["apps", "networking.k8s.io", "autoscaling/Scale"]),
    ("apps", "v1beta1", &["apps", "autoscaling/Scale"]),
    ("apps", "v1beta2", &["apps", "autoscaling/Scale"]),
    ("admissionregistration.k8s.io", "v1alpha1", &["admissionregistration.k8s.io"]),
    ("admissionregistration.k8s.io", "v1beta1", &["admissionregistration.k8s.io"]),
    ("apiextensions.k8s.io", "v1beta1", &["apiextensions.k8s.io"]),
    ("apiregistration.k8s.io", "v1beta1", &["apiregistration.k8s.io"]),
    ("authentication.k8s.io", "v1beta1", &["authentication.k8s.io"]),
    ("authorization.k8s.io", "v1beta1", &["authorization.k8s.io"]),
    ("batch", "v1beta1", &["batch"]),
    ("certificates.k8s.io", "v1beta1", &["certificates.k8s.io"]),
    ("coordination.k8s.io", "v1beta1", &["coordination.k8s.io"]),
    ("discovery.k8s.io", "v1beta1", &["discovery.k8s.io"]),
    ("events.k8s.io", "v1beta1", &["events.k8s.io"]),
    ("flowcontrol.apiserver.k8s.io", "v1beta1", &["flowcontrol.apiserver.k8s.io"]),
    ("flowcontrol.apiserver.k8s.io", "v1beta2", &["flowcontrol.apiserver.k8s.io"]),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", &["flowcontrol.apiserver.k8s.io"]),
    ("networking.k8s.io", "v1beta1", &["networking.k8s.io"]),
    ("node.k8s.io", "v1alpha1", &["node.k8s.io"]),
    ("node.k8s.io", "v1beta1", &["node.k8s.io"]),
    ("policy", "v1beta1", &["policy"]),
    ("rbac.authorization.k8s.io", "v1alpha1", &["rbac.authorization.k8s.io"]),
    ("rbac.authorization.k8s.io", "v1beta1", &["rbac.authorization.k8s.io"]),
    ("resource.k8s.io", "v1beta1", &["resource.k8s.io"]),
    ("resource.k8s.io", "v1beta2", &["resource.k8s.io"]),
    ("scheduling.k8s.io", "v1beta1", &["scheduling.k8s.io"]),
    ("storage.k8s.io", "v1alpha1", &["storage.k8s.io"]),
    ("storage.k8s.io", "v1beta1", &["storage.k8s.io"]),
];

/// Old versions that may still be sent where the served one is taken.
const TAKEN: &[(&str, &str, &str)] = &[("policy", "v1beta1", "Eviction")];

impl Actual {
    fn of(target: Target<'_>) -> Actual {
        Actual { group: target.group.into(), version: target.version.into(), kind: target.kind.into() }
    }

    pub fn api_version(&self) -> String {
        joined(&self.group, &self.version)
    }

    fn cannot(&self, target: Target<'_>, why: &dyn std::fmt::Display) -> ApiError {
        let (kind, version, taken) = (&self.kind, &self.version, target.kind);
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {taken}: {why}"))
    }

    /// The schema that reads it. Of versions that aren't served any more only the kind is known.
    fn node<'n>(&self, target: Target<'_>, taken: Node<'n>) -> Result<Node<'n>, String> {
        if let Some(node) = builtin().kind(&self.group, &self.version, &self.kind) {
            return Ok(node);
        }
        let old = OLD.iter().find(|(group, version, _)| *group == self.group && *version == self.version);
        let now = |place: &&str| match place.split_once('/') {
            Some((_, only)) if only != self.kind => None,
            Some((group, only)) => builtin().kind(group, "v1", only),
            None => builtin().kind(place, "v1", &self.kind),
        };
        let node = old.and_then(|(_, _, groups)| groups.iter().find_map(now));
        if let Some(node) = node {
            return Ok(if self.kind == target.kind { taken } else { node });
        }
        let version = self.api_version();
        let scheme = match target.group {
            "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
            "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
            _ => "pkg/api/legacyscheme/scheme.go:30",
        };
        let kind = &self.kind;
        Err(format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme \"{scheme}\""))
    }

    /// Only the kind itself may stand for the kind that is taken, and as a rule only in the version that is taken.
    fn check(&self, target: Target<'_>) -> Result<(), ApiError> {
        if self.group == target.group && self.version == target.version && self.kind == target.kind {
            return Ok(());
        }
        if self.kind == target.kind {
            if TAKEN.contains(&(&*self.group, &*self.version, &*self.kind)) {
                return Ok(());
            }
            let (said, taken) = (self.api_version(), joined(target.group, target.version));
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({said}) does not match the expected API version ({taken})"
            )));
        }
        let why = self.unconvertible(target).unwrap_or_default();
        Err(self.cannot(target, &why))
    }

    /// Another kind can't be made the one that is taken.
    fn unconvertible(&self, target: Target<'_>) -> Option<String> {
        let (version, kind, taken) = (&self.version, &self.kind, target.kind);
        let internal = internal_package(target);
        (kind != taken).then(|| format!("converting ({version}.{kind}) to ({internal}.{taken}): unknown conversion"))
    }
}

/// The package of the internal type of a kind.
fn internal_package<'t>(target: Target<'t>) -> &'t str {
    match (target.group, target.kind) {
        ("", _) | ("events.k8s.io", _) => "core",
        ("apps" | "extensions", _) => "apps",
        ("rbac.authorization.k8s.io", _) => "rbac",
        ("flowcontrol.apiserver.k8s.io", _) => "flowcontrol",
        (group, _) => group.split('.').next().unwrap_or(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_MAP: Target<'static> = Target { group: "", version: "v1", kind: "ConfigMap" };
    const DEPLOYMENT: Target<'static> = Target { group: "apps", version: "v1", kind: "Deployment" };

    const SCALE: Target<'static> = Target { group: "autoscaling", version: "v1", kind: "Scale" };
    const EVICTION: Target<'static> = Target { group: "policy", version: "v1", kind: "Eviction" };

    fn error(target: Target<'_>, media: Media, body: &str) -> String {
        decode_body(target, media, body.as_bytes(), Validation::Strict).expect_err(body).message
    }

    #[test]
    fn bodies_that_are_none_are_told() {
        let meta = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
        let ty =
            r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
        for (media, body, expected) in [
            (Media::Json, "", format!("{meta}unexpected end of JSON input (<empty>)")),
            (Media::Json, "{", format!("{meta}unexpected end of JSON input ({{)")),
            (Media::Json, "[]", format!("{meta}json: cannot unmarshal array into Go value of type {ty} (5b5d)")),
            (Media::Yaml, "- x", format!("{meta}json: cannot unmarshal array into Go value of type {ty} (2d2078)")),
            (
                Media::Yaml,
                "a: b: c",
                format!("{unrecognized}yaml: mapping values are not allowed in this context (613a20623a2063)"),
            ),
            (
                Media::Protobuf,
                "garbage",
                format!(
                    "{unrecognized}provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (67617262616765)"
                ),
            ),
            (
                Media::Json,
                r#"{"apiVersion": "a/b/c", "kind": "ConfigMap"}"#,
                format!(r#"{unrecognized}unexpected GroupVersion string: a/b/c ({{"apiVersion": "a/b/c", "kind" ...)"#),
            ),
        ] {
            assert_eq!(error(CONFIG_MAP, media, body), expected);
        }
        let read = decode_body(CONFIG_MAP, Media::Json, b"null", Validation::Strict).expect("an empty object");
        assert_eq!(read.0, serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
    }

    #[test]
    fn another_kind_is_refused() {
        for (target, body, expected) in [
            (
                CONFIG_MAP,
                r#"{"apiVersion": "v1", "kind": "Secret"}"#,
                r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"#,
            ),
            (
                CONFIG_MAP,
                r#"{"apiVersion": "v1", "kind": "DeleteOptions"}"#,
                r#"DeleteOptions in version "v1" cannot be handled as a ConfigMap: converting (v1.DeleteOptions) to (core.ConfigMap): unknown conversion"#,
            ),
            (
                CONFIG_MAP,
                r#"{"apiVersion": "apps/v1", "kind": "ConfigMap"}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
            (
                DEPLOYMENT,
                r#"{"apiVersion": "extensions/v1beta1", "kind": "Deployment"}"#,
                "the API version in the data (extensions/v1beta1) does not match the expected API version (apps/v1)",
            ),
            (
                SCALE,
                r#"{"apiVersion": "extensions/v1beta1", "kind": "Scale"}"#,
                "the API version in the data (extensions/v1beta1) does not match the expected API version (autoscaling/v1)",
            ),
            (
                SCALE,
                r#"{"apiVersion": "apps/v1beta2", "kind": "HorizontalPodAutoscaler"}"#,
                r#"HorizontalPodAutoscaler in version "v1beta2" cannot be handled as a Scale: no kind "HorizontalPodAutoscaler" is registered for version "apps/v1beta2" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
            (
                CONFIG_MAP,
                r#"{"kind": "ConfigMap", "data": {"a": "b"}, "extra": 1}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "extra""#,
            ),
        ] {
            assert_eq!(error(target, Media::Json, body), expected);
        }
    }

    #[test]
    fn evictions_are_taken_in_their_old_version_too() {
        let body = br#"{"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}}"#;
        let read = decode_body(EVICTION, Media::Json, body, Validation::Strict).expect("an eviction");
        assert_eq!(read.0["apiVersion"], "policy/v1");
    }

    #[test]
    fn repeated_keys_of_yaml_are_found_first() {
        let body = "data:\n  x: '1'\n  x: '2'\nnope: 1\n";
        let read = decode_body(CONFIG_MAP, Media::Yaml, body.as_bytes(), Validation::Warn).expect("well-formed");
        assert_eq!(read.1, [r#"line 3: key "x" already set in map"#, r#"unknown field "nope""#]);
        assert_eq!(read.0["data"]["x"], "2");
        assert!(
            error(CONFIG_MAP, Media::Yaml, body).contains("strict decoding error: yaml: unmarshal errors:\n  line 3")
        );
    }
}
