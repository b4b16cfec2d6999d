//! The fields that a write can't set, whatever the client sends: its manager doesn't come to manage them.

use super::set::{self, Set};

/// Paths of fields; what is below them is meant too.
pub type Reset = &'static [&'static [&'static str]];

const STATUS: Reset = &[&["status"]];
const SPEC: Reset = &[&["spec"]];
const METADATA_AND_SPEC: Reset = &[&["metadata"], &["spec"]];

/// What is special, by kind and subresource: otherwise the object itself resets its status, and a subresource the spec.
const TABLE: &[(&str, &str, Reset)] = &[
    ("APIService", "status", METADATA_AND_SPEC),
    ("CertificateSigningRequest", "", &[&["spec"], &["status"]]),
    ("CertificateSigningRequest", "approval", &[&["spec"], &["status", "certificate"]]),
    ("CertificateSigningRequest", "status", &[&["spec"], &["status", "conditions"]]),
    ("CustomResourceDefinition", "status", METADATA_AND_SPEC),
    ("Deployment", "status", &[&["spec"], &["metadata", "labels"]]),
    ("DeviceTaintRule", "status", METADATA_AND_SPEC),
    ("FlowSchema", "status", METADATA_AND_SPEC),
    ("Namespace", "finalize", STATUS),
    // What upstream says of these two isn't looked at there.
    ("Pod", "ephemeralcontainers", &[]),
    ("Pod", "resize", &[]),
    ("Pod", "status", &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
    ("PriorityLevelConfiguration", "status", METADATA_AND_SPEC),
    ("ResourceClaim", "status", METADATA_AND_SPEC),
    ("ValidatingAdmissionPolicy", "status", METADATA_AND_SPEC),
    ("VolumeAttachment", "status", METADATA_AND_SPEC),
];

/// Of a built-in kind.
pub fn of(kind: &str, subresource: &str) -> Reset {
    match TABLE.iter().find(|(of, through, _)| *of == kind && *through == subresource) {
        Some((_, _, reset)) => reset,
        None if subresource.is_empty() => STATUS,
        None if subresource == "scale" => &[],
        None => SPEC,
    }
}

/// Leaves the fields out.
pub fn filter(reset: Reset, fields: &mut Set) {
    reset.iter().for_each(|path| set::remove_below(fields, path));
}
