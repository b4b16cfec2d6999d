//! What a request asks for, read from its method, path, query and headers before anything is done about it.

pub mod info;
pub mod negotiate;
pub mod query;

pub use info::{RequestInfo, Verb};
pub use negotiate::{Accept, Offer, Shape};
pub use query::Query;
