//! Kontiki: a Kubernetes API server whose replicas are their own consensus store.
#![forbid(unsafe_code)]

pub mod admission;
pub mod auth;
pub mod codec;
pub mod discovery;
pub mod facts;
pub mod field;
pub mod kinds;
pub mod managed;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod request;
pub mod respond;
pub mod schema;
pub mod selector;
pub mod server;
pub mod status;
pub mod table;
pub mod time;
pub mod verbs;
