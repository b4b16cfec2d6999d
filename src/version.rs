//! Which version this is, and which of Kubernetes it serves.

/// Of Kontiki.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
/// Of the Kubernetes that is served, as clients compare it; what follows `+` says who serves it.
pub const GIT: &str = concat!("v1.36.2+kontiki-", env!("CARGO_PKG_VERSION"));
