//! Patch: a change of the object that is there, told as a difference.

use std::borrow::Cow;

use serde_json::Value;

use super::commit::carry_out;
use super::options::WriteOptions;
use super::subresource::Face;
use super::{Answer, Request, input, target, update};
use crate::patch::{self, PatchKind};
use crate::status::Result;

pub async fn patch(request: &mut Request) -> Result<Answer> {
    let kind = PatchKind::of(input::content_type(&request.headers), false)?;
    let options = WriteOptions::read(request, "PatchOptions", Some(kind == PatchKind::Apply))?;
    let face = Face::of(request)?;
    carry_out(request, options.dry_run, |request, view| {
        update::decide(request, view, &options, face, false, "", |request, old| {
            let old = old.ok_or_else(|| request.not_found())?;
            patched(request, &options, kind, face, old)
        })
    })
    .await
}

/// The object as the patch leaves it, in the stored version. The patch is of the version that the request speaks.
fn patched(request: &mut Request, options: &WriteOptions, kind: PatchKind, face: Face, old: &Value) -> Result<Value> {
    let resource = request.resource.clone();
    let rules = request.kind()?;
    let mut current = Cow::Borrowed(old);
    if !resource.is_stored_version() {
        rules.from_storage(current.to_mut(), &resource.version);
    }
    let node = request.node()?;
    let target = target(&resource, &request.info.subresource);
    let patched = patch::apply(kind, target, node, &current, &request.body, options.validation)?;
    request.warnings.extend(patched.warnings);
    let mut object = patched.object;
    face.complete(rules, &mut object);
    input::agree_on_namespace(request, &mut object)?;
    input::agree_on_name(request, &object)?;
    Ok(object)
}
