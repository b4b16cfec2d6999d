//! Get: one object, from this replica's own state.

use kontiki_storage::View;

use super::list::{settled_view, uint};
use super::{Answer, Object, Request, decode_stored};
use crate::kinds::workloads::scale::to_scale;
use crate::status::{ApiError, Result};

pub async fn get(request: &mut Request) -> Result<Answer> {
    if request.query.flag("export") {
        return Err(ApiError::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    let view = view(request).await?;
    let record = view.get(request.key()?.as_str()).ok_or_else(|| not_found(request))?;
    let object = match request.info.subresource.as_str() {
        "scale" => Object::Made(to_scale(&decode_stored(record)?)),
        _ => Object::Stored(record.value.clone()),
    };
    Ok(Answer::Object { code: 200, object })
}

/// What is never stored goes by its kind.
fn not_found(request: &Request) -> ApiError {
    let resource = &request.resource;
    match &resource.stored {
        Some(_) => request.not_found(),
        None => ApiError::not_found(&resource.group, &resource.kind.to_ascii_lowercase(), request.name()),
    }
}

/// The view that a get of one object is served from: `resourceVersion` unset, 0, or at least this.
async fn view(request: &Request) -> Result<View> {
    match request.query.text("resourceVersion") {
        "" => request.fresh_view().await,
        "0" => Ok(request.server.replica.store().view()),
        text => {
            // Upstream forgets to make this one a bad request.
            let revision = uint("resourceVersion", text).map_err(|why| ApiError::new(500, "", why))?;
            settled_view(request, revision).await
        }
    }
}
