//! Tables: what `kubectl get` shows. `columns.txt` says which columns a table has, the modules below what stands in them.
//! What isn't listed there is shown by name and creation time.

mod cells;
mod cluster;
mod config;
mod networking;
mod pods;
mod policy;
mod storage;
mod workloads;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::discovery::{Name, Resource};
use crate::object::Fields;

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
    may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
    creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATION_TIMESTAMP: &str = "CreationTimestamp is a timestamp representing the server time when this object was \
    created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this \
    value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More \
    info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The cells of a row, in the order of the columns.
pub type Cells = Vec<Value>;

/// Tables by the name of the resource whose objects they show, as in [`Resource::table`].
static COLUMNS: LazyLock<HashMap<&str, Value>> = LazyLock::new(|| read(include_str!("columns.txt")));

/// A paragraph for each table: its name, then a line for each column, with the column's name, its type (and `/format`),
/// `wide` where it is of lower priority, and its description, separated by tabs.
fn read(text: &'static str) -> HashMap<&'static str, Value> {
    let tables = text.split("\n\n").filter_map(|paragraph| paragraph.trim_end().split_once('\n'));
    tables.map(|(table, lines)| (table, lines.lines().map(column).collect())).collect()
}

fn column(line: &str) -> Value {
    let mut words = line.splitn(4, '\t');
    let mut word = || words.next().unwrap_or_default();
    let (name, of, priority, description) = (word(), word(), word(), word());
    let (of, format) = of.split_once('/').unwrap_or((of, ""));
    let description = match description {
        "=name" => NAME.to_owned(),
        "=creationTimestamp" => CREATION_TIMESTAMP.to_owned(),
        other => other.replace("\\n", "\n"),
    };
    let priority = u8::from(priority == "wide");
    json!({ "name": name, "type": of, "format": format, "description": description, "priority": priority })
}

/// The table that shows what a resource or subresource answers with.
pub fn name(resource: &Resource, subresource: &str) -> Name {
    if subresource == "scale" { "scales.autoscaling".into() } else { resource.table.clone() }
}

/// `columnDefinitions`.
pub fn columns(table: &str) -> Value {
    COLUMNS.get(table).cloned().unwrap_or_else(|| {
        json!([column("Name\tstring/name\t\t=name"), column("Created At\tdate\t\t=creationTimestamp")])
    })
}

/// Puts objects of a list in the order in which they are shown.
pub fn arrange(table: &str, objects: &mut [Value]) {
    if table == "flowschemas.flowcontrol.apiserver.k8s.io" {
        objects.sort_by_cached_key(|schema| {
            let precedence = schema.int_at(&["spec", "matchingPrecedence"]).unwrap_or_default();
            (precedence, schema.text_at(&["metadata", "name"]).to_owned())
        });
    }
}

/// `conditions` of a row: whether what it shows is over.
pub fn conditions(table: &str, object: &Value) -> Option<Value> {
    if table == "pods" { pods::conditions(object) } else { None }
}

/// The cells of one row, which shows an object of the stored version.
pub fn cells(table: &str, object: &Value) -> Cells {
    let cells = match table {
        "apiservices.apiregistration.k8s.io" => cluster::api_service,
        "certificatesigningrequests.certificates.k8s.io" => policy::certificate_signing_request,
        "clusterrolebindings.rbac.authorization.k8s.io" => policy::role_binding,
        "componentstatuses" => cluster::component_status,
        "configmaps" => config::config_map,
        "controllerrevisions.apps" => workloads::controller_revision,
        "cronjobs.batch" => workloads::cron_job,
        "csidrivers.storage.k8s.io" => storage::csi_driver,
        "csinodes.storage.k8s.io" => storage::csi_node,
        "csistoragecapacities.storage.k8s.io" => storage::csi_storage_capacity,
        "daemonsets.apps" => workloads::daemon_set,
        "deployments.apps" => workloads::deployment,
        "deviceclasses.resource.k8s.io" => cluster::name_and_age,
        "endpoints" => networking::endpoints,
        "endpointslices.discovery.k8s.io" => networking::endpoint_slice,
        "events" => config::event,
        "flowschemas.flowcontrol.apiserver.k8s.io" => policy::flow_schema,
        "horizontalpodautoscalers.autoscaling" => workloads::horizontal_pod_autoscaler,
        "ingressclasses.networking.k8s.io" => networking::ingress_class,
        "ingresses.networking.k8s.io" => networking::ingress,
        "ipaddresses.networking.k8s.io" => networking::ip_address,
        "jobs.batch" => workloads::job,
        "leases.coordination.k8s.io" => cluster::lease,
        "mutatingadmissionpolicies.admissionregistration.k8s.io" => policy::mutating_admission_policy,
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io" => policy::admission_policy_binding,
        "mutatingwebhookconfigurations.admissionregistration.k8s.io" => policy::webhook_configuration,
        "namespaces" => cluster::namespace,
        "networkpolicies.networking.k8s.io" => networking::network_policy,
        "nodes" => cluster::node,
        "persistentvolumeclaims" => storage::persistent_volume_claim,
        "persistentvolumes" => storage::persistent_volume,
        "poddisruptionbudgets.policy" => policy::pod_disruption_budget,
        "pods" => pods::pod,
        "podtemplates" => workloads::pod_template,
        "priorityclasses.scheduling.k8s.io" => policy::priority_class,
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => policy::priority_level_configuration,
        "replicasets.apps" => workloads::replica_set,
        "replicationcontrollers" => workloads::replication_controller,
        "resourceclaims.resource.k8s.io" => cluster::resource_claim,
        "resourceclaimtemplates.resource.k8s.io" => cluster::name_and_age,
        "resourcequotas" => policy::resource_quota,
        "resourceslices.resource.k8s.io" => cluster::resource_slice,
        "rolebindings.rbac.authorization.k8s.io" => policy::role_binding,
        "runtimeclasses.node.k8s.io" => cluster::runtime_class,
        "scales.autoscaling" => workloads::scale,
        "secrets" => config::secret,
        "serviceaccounts" => config::service_account,
        "servicecidrs.networking.k8s.io" => networking::service_cidr,
        "services" => networking::service,
        "statefulsets.apps" => workloads::stateful_set,
        "storageclasses.storage.k8s.io" => storage::storage_class,
        "validatingadmissionpolicies.admissionregistration.k8s.io" => policy::validating_admission_policy,
        "validatingadmissionpolicybindings.admissionregistration.k8s.io" => policy::admission_policy_binding,
        "validatingwebhookconfigurations.admissionregistration.k8s.io" => policy::webhook_configuration,
        "volumeattachments.storage.k8s.io" => storage::volume_attachment,
        "volumeattributesclasses.storage.k8s.io" => storage::volume_attributes_class,
        _ => cluster::name_and_creation,
    };
    cells(object)
}
