//! Kontiki: a Kubernetes API server whose replicas are their own consensus store.
#![forbid(unsafe_code)]

pub mod codec;
pub mod discovery;
pub mod field;
pub mod kinds;
pub mod object;
pub mod quantity;
pub mod schema;
pub mod status;
pub mod time;
