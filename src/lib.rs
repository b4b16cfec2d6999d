//! Kontiki: a Kubernetes API server whose replicas are their own consensus store.
#![forbid(unsafe_code)]

pub mod admission;
pub mod auth;
pub mod bootstrap;
pub mod cli;
pub mod client;
pub mod codec;
pub mod config;
pub mod discovery;
pub mod facts;
pub mod field;
pub mod health;
pub mod internal;
pub mod join;
pub mod kinds;
pub mod kubeconfig;
pub mod loops;
pub mod managed;
pub mod metrics;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod quantity;
pub mod request;
pub mod respond;
pub mod schema;
pub mod selector;
pub mod serve;
pub mod server;
pub mod status;
pub mod table;
pub mod time;
pub mod verbs;
pub mod version;
