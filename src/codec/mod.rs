//! Between bytes and objects: JSON, YAML and protobuf, read and written by the schema table.

pub mod canonical;
pub mod decode;
pub mod json;
pub mod protobuf;
pub mod request;
pub mod write;
pub mod yaml;

#[cfg(test)]
pub(crate) mod tests;

pub use canonical::canonicalize;
pub use decode::{Decoded, decode};
pub use json::{decode_untyped, decode_untyped_strict};
pub use request::{Media, Target, Validation, decode_body};
pub(crate) use request::{Meta, decode_again};
pub use write::{encode_for_store, escape_html, to_pretty};
pub use yaml::{from_yaml, to_yaml};
