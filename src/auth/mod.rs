//! Who a request comes from, and what that user may do.

pub mod authenticate;
pub mod authorize;
mod bootstrap_tokens;
pub mod cover;
pub mod impersonate;
pub mod rbac;
pub mod service_accounts;
pub mod tokens;

use std::collections::BTreeMap;

pub use authenticate::{Authenticator, Peer};
pub use authorize::{Attributes, Authorizer, Decision};

pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// `user.Info`: what authentication found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Says that the user has been authenticated, which makes anybody a member of one more group.
    fn authenticated(mut self) -> User {
        if !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}
