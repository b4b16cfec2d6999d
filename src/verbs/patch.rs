//! Patch: a change of the object that is there, told as a difference.

use serde_json::Value;

use super::commit::carry_out;
use super::options::WriteOptions;
use super::subresource::Face;
use super::{Answer, Request, fields, input, target, update};
use crate::patch::{self, PatchKind};
use crate::schema::builtin;
use crate::status::{ApiError, Result};

pub async fn patch(request: &mut Request) -> Result<Answer> {
    let kind = PatchKind::of(input::content_type(&request.headers), false)?;
    let options = WriteOptions::read(request, "PatchOptions", Some(kind == PatchKind::Apply))?;
    let face = Face::of(request)?;
    let applies = kind == PatchKind::Apply;
    carry_out(request, options.dry_run, |request, view| {
        // Only an apply of the object itself makes one.
        let create = applies && request.info.subresource.is_empty();
        update::decide(request, view, &options, face, create, "", |request, old| {
            if applies {
                return fields::apply(request, &options, face, old);
            }
            let old = old.ok_or_else(|| request.not_found())?;
            patched(request, &options, kind, face, old)
        })
    })
    .await
}

/// The object as the patch leaves it, in the stored version. The patch is of the version that the request speaks.
fn patched(request: &mut Request, options: &WriteOptions, kind: PatchKind, face: Face, old: &Value) -> Result<Value> {
    let resource = request.resource.clone();
    let mut current = face.show(old);
    if !resource.is_stored_version() {
        request.kind()?.from_storage(current.to_mut(), &resource.version);
    }
    let target = target(&resource, &request.info.subresource);
    let node = builtin().kind(target.group, target.version, target.kind);
    let node = node.ok_or_else(|| ApiError::internal(format!("no schema for kind {}", target.kind)))?;
    let patched = patch::apply(kind, target, node, &current, &request.body, options.validation)?;
    request.warnings.extend(patched.warnings);
    let mut sent = patched.object;
    input::agree_on_namespace(request, &mut sent)?;
    input::agree_on_name(request, &sent)?;
    let mut object = face.take(request, sent, Some(old))?;
    fields::manage(request, options, face, Some(old), &mut object);
    Ok(object)
}
