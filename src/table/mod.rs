//! Tables: the columns that `kubectl get` shows.

use serde_json::{Value, json};

use crate::discovery::Resource;
use crate::object::Fields;

/// `columnDefinitions`.
pub fn columns(_resource: &Resource) -> Value {
    json!([
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
    ])
}

/// The cells of one row.
pub fn cells(_resource: &Resource, object: &Value) -> Vec<Value> {
    vec![object.text_at(&["metadata", "name"]).into(), object.text_at(&["metadata", "creationTimestamp"]).into()]
}
