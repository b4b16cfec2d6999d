//! TaintNodesByCondition: a new node takes no pods until the node controller has seen it ready.

use serde_json::{Value, json};

use super::{Admission, Operation, Plugin, admitted};
use crate::object::Fields;
use crate::status::Result;

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate, validate: admitted };

fn handles(admission: &Admission<'_>) -> bool {
    admission.operation == Operation::Create && admission.is_whole("nodes")
}

fn mutate(_: &mut Admission<'_>, node: &mut Value) -> Result<()> {
    const KEY: &str = "node.kubernetes.io/not-ready";
    const EFFECT: &str = "NoSchedule";
    let taints = node.list_at(&["spec", "taints"]);
    if taints.iter().any(|taint| taint.text_at(&["key"]) == KEY && taint.text_at(&["effect"]) == EFFECT) {
        return Ok(());
    }
    let mut taints = taints.to_vec();
    taints.push(json!({ "key": KEY, "effect": EFFECT }));
    node.set(&["spec", "taints"], taints);
    Ok(())
}
