//! The status of flow schemas: whether the priority level that they name is there.

use std::collections::HashSet;

use kontiki_storage::Revision;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::DEADLINE;
use crate::field::go_quote;
use crate::internal;
use crate::object::Fields;
use crate::server::Server;
use crate::status::Result;
use crate::time;
use crate::verbs::decode_stored;

const SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io/";
const LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io/";
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

#[derive(Default)]
pub struct FlowSchemas {
    /// Up to here all is settled.
    seen: Revision,
}

impl FlowSchemas {
    pub async fn settle(&mut self, server: &Server) -> Result<()> {
        let (registry, view) = (server.registry(), server.replica.store().view());
        if view.revision() == self.seen {
            return Ok(());
        }
        let levels: HashSet<&str> = view.prefix(LEVELS).map(|level| &level.key.as_str()[LEVELS.len()..]).collect();
        for record in view.prefix(SCHEMAS) {
            let schema = decode_stored(record)?;
            let level = schema.text_at(&["spec", "priorityLevelConfiguration", "name"]);
            let wanted = condition(level, levels.contains(level));
            let there = schema.list_at(&["status", "conditions"]).iter().find(|c| c.text_at(&["type"]) == "Dangling");
            let same = |field: &str| there.is_some_and(|there| there.at(&[field]) == wanted.at(&[field]));
            if same("status") && same("message") {
                continue;
            }
            let transaction = internal::update(&registry, record, |object| set(object, wanted))?;
            // After a conflict the next round finds what is there.
            server.replica.propose(transaction, Instant::now() + DEADLINE).await?;
        }
        self.seen = view.revision();
        Ok(())
    }
}

/// Of a flow schema that names this priority level.
fn condition(level: &str, there: bool) -> Value {
    let (status, reason, rest) = match there {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let level = go_quote(level);
    json!({
        "type": "Dangling",
        "status": status,
        "lastTransitionTime": time::now(),
        "reason": reason,
        "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level} {rest}"),
    })
}

fn set(object: &mut Value, condition: Value) {
    let mut conditions = object.list_at(&["status", "conditions"]).to_vec();
    conditions.retain(|other| other.text_at(&["type"]) != "Dangling");
    conditions.push(condition);
    object.set(&["status", "conditions"], conditions);
    // Upstream applies it, and who applies comes first.
    let fields = ["lastTransitionTime", "message", "reason", "status", "type"];
    let mut owned = json!({".": {}});
    fields.iter().for_each(|field| owned.set(&[&format!("f:{field}")], json!({})));
    let entry = json!({
        "manager": MANAGER,
        "operation": "Apply",
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "time": time::now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Dangling\"}": owned}}},
        "subresource": "status",
    });
    let mut entries = object.list_at(&["metadata", "managedFields"]).to_vec();
    entries.retain(|other| other.text_at(&["manager"]) != MANAGER);
    entries.insert(0, entry);
    object.set(&["metadata", "managedFields"], entries);
}
