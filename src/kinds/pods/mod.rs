//! Pods, and the pod templates that workloads carry.
//!
//! Checks of a pod's parts stand in modules by subject and take the part, its path and the pod around it. [`Latitude`]
//! is what else they need to know: whether the spec is a pod's own, and which mistakes were already there.

use serde_json::Value;

use crate::field::{Errors, Path};
use crate::object::Fields;

pub mod admission;
mod containers;
pub mod defaults;
pub mod image;
mod pod;
mod probes;
pub mod resources;
mod scheduling;
mod security;
mod shapes;
mod spec;
mod status;
pub mod subresources;
pub mod template;
mod update;
mod volumes;
mod warnings;

#[cfg(test)]
mod tests;

pub use defaults::{default_pod_spec, default_template};
pub use pod::KINDS;
pub use shapes::{shown_spec, shown_template};
pub use template::{drop_disabled_fields, template_warnings, validate_template};

/// What validation lets pass, because it stands in a template, or because an older object was accepted with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latitude {
    /// The spec is that of a pod, not of a template.
    pod: bool,
    any_deletion_cost: bool,
    any_huge_pages: bool,
    any_host_sysctls: bool,
    any_node_values: bool,
    any_pod_values: bool,
    any_selinux_policy: bool,
    any_spread_selector: bool,
    any_token_path: bool,
}

impl Latitude {
    /// `old` is the pod or template that was there, if any.
    fn of(old: Option<&Value>, pod: bool) -> Latitude {
        let Some(old) = old else { return Latitude { pod, ..Latitude::default() } };
        let empty = Value::Null;
        let spec = old.at(&["spec"]).unwrap_or(&empty);
        Latitude {
            pod,
            any_deletion_cost: update::deletion_cost(old).is_err(),
            any_huge_pages: has_odd_huge_pages(spec),
            any_host_sysctls: has_host_sysctls(spec),
            any_node_values: scheduling::has_odd_node_values(spec),
            any_pod_values: scheduling::has_odd_pod_values(spec),
            any_selinux_policy: spec.at(&["securityContext", "seLinuxChangePolicy"]).is_some(),
            any_spread_selector: scheduling::has_odd_spread(spec),
            any_token_path: has_odd_token_path(spec),
        }
    }
}

fn has_odd_huge_pages(spec: &Value) -> bool {
    let owners = security::containers(spec).map(|(_, _, container)| container);
    let odd = |list: resources::Amounts| {
        list.into_iter().any(|(name, amount)| resources::is_huge_pages(&name) && !containers::divides(&name, amount))
    };
    owners.into_iter().any(|owner| ["limits", "requests"].iter().any(|list| odd(resources::amounts(owner, list))))
}

fn has_host_sysctls(spec: &Value) -> bool {
    let sysctls = spec.list_at(&["securityContext", "sysctls"]).iter();
    sysctls.map(|sysctl| sysctl.text_at(&["name"])).any(|name| security::host_sysctl(spec, name).is_some())
}

fn has_odd_token_path(spec: &Value) -> bool {
    let sources = spec.list_at(&["volumes"]).iter().flat_map(|volume| volume.list_at(&["projected", "sources"]));
    let paths = sources.map(|source| source.text_at(&["serviceAccountToken", "path"])).filter(|path| !path.is_empty());
    let mut found = Errors::default();
    paths.for_each(|path| volumes::local_path(&Path::new(""), path, &mut found));
    !found.is_empty()
}
