//! Delete of a collection: what a list finds is deleted one by one, as many at a time as is good for the log.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use kontiki_storage::Record;

use super::options::DeleteOptions;
use super::{Answer, Request, delete, list, place_of};
use crate::status::{ApiError, Result};

const AT_ONCE: usize = 32;

/// Not atomic: some may be deleted when it fails. Answers with the objects as they were.
pub async fn delete_collection(request: &mut Request) -> Result<Answer> {
    // Both kinds of options are looked at before anything is listed.
    list::Options::read(request)?;
    let options = DeleteOptions::read(request)?;
    delete::warn_of_default(request, &options)?;
    let Answer::List(found) = list::list(request).await? else {
        return Err(ApiError::internal("a list gave no list"));
    };
    let each = found.records.iter().map(|record| one(request, record.clone(), options.clone()));
    let each: Vec<_> = each.collect();
    stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(Answer::List(found))
}

fn one(request: &Request, record: Arc<Record>, options: DeleteOptions) -> impl Future<Output = Result<()>> + use<> {
    let mut request = request.about(place_of(&request.resource, &record.key).1);
    async move {
        match delete::carry(&mut request, options).await {
            Err(error) if error.code != 404 => Err(error),
            _ => Ok(()),
        }
    }
}
