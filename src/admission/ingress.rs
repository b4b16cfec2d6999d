//! DefaultIngressClass.

use serde_json::Value;

use super::{Admission, Operation, Plugin, admitted, newest_marked};
use crate::object::Fields;
use crate::status::Result;

pub(super) const PLUGIN: Plugin = Plugin {
    handles: |admission| admission.operation == Operation::Create && admission.is_whole("ingresses.networking.k8s.io"),
    mutate,
    validate: admitted,
};

fn mutate(admission: &mut Admission<'_>, ingress: &mut Value) -> Result<()> {
    let annotation = ["metadata", "annotations", "kubernetes.io/ingress.class"];
    if ingress.at(&["spec", "ingressClassName"]).is_some() || ingress.at(&annotation).is_some() {
        return Ok(());
    }
    let mark = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = newest_marked(admission.view, "ingressclasses.networking.k8s.io/", &mark) {
        ingress.set(&["spec", "ingressClassName"], class);
    }
    Ok(())
}
