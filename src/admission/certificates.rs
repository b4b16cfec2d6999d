//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use serde_json::Value;

use super::{Admission, Operation, Plugin, unchanged};
use crate::auth::authorize::Target;
use crate::auth::{Attributes, Decision, MASTERS};
use crate::kinds::certificates::requested_groups;
use crate::object::Fields;
use crate::status::Result;

const TABLE: &str = "certificatesigningrequests.certificates.k8s.io";
/// The signer of client certificates that the API server itself trusts.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) const APPROVAL: Plugin = Plugin {
    handles: |admission| is_update(admission, "approval"),
    mutate: unchanged,
    validate: |admission, object| authorize(admission, object, "approve"),
};

pub(super) const SIGNING: Plugin =
    Plugin { handles: |admission| is_update(admission, "status"), mutate: unchanged, validate: check_signing };

pub(super) const SUBJECT: Plugin = Plugin {
    handles: |admission| admission.operation == Operation::Create && admission.is_whole(TABLE),
    mutate: unchanged,
    validate: check_subject,
};

fn is_update(admission: &Admission<'_>, subresource: &str) -> bool {
    admission.operation == Operation::Update
        && admission.table() == TABLE
        && admission.request.info.subresource == subresource
}

/// Whether the user may do that with requests for this signer, or for all signers of its domain.
fn authorize(admission: &mut Admission<'_>, object: &Value, verb: &str) -> Result<()> {
    let signer = object.text_at(&["spec", "signerName"]);
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let allowed = [signer, &domain].iter().any(|name| {
        let group = "certificates.k8s.io";
        let what = Target::Resource { group, resource: "signers", subresource: "", namespace: "", name };
        let attributes = Attributes { user: &admission.request.user, verb, what };
        matches!(admission.request.server.authorizer.authorize(&attributes), Decision::Allow(_))
    });
    match allowed {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            Err(admission.forbidden(object, why))
        }
    }
}

/// What signers set is only for them.
fn check_signing(admission: &mut Admission<'_>, object: &Value) -> Result<()> {
    let of_signer = |object: Option<&Value>, field: &str| object.and_then(|o| o.at(&["status", field])).cloned();
    let changed = |field: &&str| of_signer(Some(object), field) != of_signer(admission.old, field);
    match ["certificate", "conditions"].iter().any(changed) {
        true => authorize(admission, object, "sign"),
        false => Ok(()),
    }
}

/// Nobody gets a certificate of the most powerful group this way.
fn check_subject(admission: &mut Admission<'_>, object: &Value) -> Result<()> {
    if object.text_at(&["spec", "signerName"]) != CLIENT_SIGNER {
        return Ok(());
    }
    let groups =
        requested_groups(object).map_err(|e| admission.forbidden(object, format!("failed to parse CSR: {e}")))?;
    match groups.iter().any(|group| group == MASTERS) {
        true => {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            Err(admission.forbidden(object, why))
        }
        false => Ok(()),
    }
}
