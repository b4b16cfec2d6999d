//! Pods, and the pod templates that workloads carry.

pub mod defaults;
pub mod image;
pub mod resources;
pub mod template;

pub use defaults::{default_pod_spec, default_template};
pub use template::{template_warnings, validate_template};
