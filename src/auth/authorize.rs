//! Authorization: may this user do that? A chain is asked until one of it decides.

use std::fmt;
use std::sync::Arc;

use super::rbac::{Grant, Rbac, Rule};
use super::{MASTERS, User};
use crate::cli::AuthorizationMode;
use crate::field::go_quote;
use crate::request::{Query, RequestInfo, Verb};
use crate::status::ApiError;

/// `authorizer.Attributes`: what somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub what: Target<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    Path(&'a str),
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str, name: &'a str },
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a User, info: &'a RequestInfo, query: &'a Query) -> Attributes<'a> {
        let selected = match info.verb {
            Verb::List | Verb::Watch if info.name.is_empty() => only_name(query.text("fieldSelector")),
            _ => None,
        };
        let what = match info.is_resource {
            false => Target::Path(&info.path),
            true => Target::Resource {
                group: &info.group,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: selected.unwrap_or(&info.name),
            },
        };
        Attributes { user, verb: &info.verb_name, what }
    }

    /// The error for those who may not.
    pub fn forbidden(&self, reason: &str) -> ApiError {
        let mut message = format!("User {} cannot {self}", go_quote(&self.user.name));
        if !reason.is_empty() {
            message += ": ";
            message += reason;
        }
        match self.what {
            Target::Path(_) => ApiError::forbidden("", "", "", message),
            Target::Resource { group, resource, name, .. } => ApiError::forbidden(group, resource, name, message),
        }
    }
}

/// The one name that a field selector lets through, if it is a plain one: who may read an object may also watch it.
fn only_name(selector: &str) -> Option<&str> {
    let name = selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field == "metadata.name").then(|| value.strip_prefix('=').unwrap_or(value))
    })?;
    (!name.is_empty() && !name.contains(['/', '%', '\\']) && !matches!(name, "." | "..")).then_some(name)
}

impl fmt::Display for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Target::Path(path) => write!(f, "{} path {}", self.verb, go_quote(path)),
            Target::Resource { group, resource, subresource, namespace, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                let resource = format!("{resource}{slash}{subresource}");
                write!(f, "{} resource {} in API group {}", self.verb, go_quote(&resource), go_quote(group))?;
                match namespace {
                    "" => f.write_str(" at the cluster scope"),
                    namespace => write!(f, " in the namespace {}", go_quote(namespace)),
                }
            }
        }
    }
}

#[derive(Debug)]
pub enum Decision {
    Allow(Option<Grant>),
    /// With the reason, which may be empty.
    Deny(String),
}

#[derive(Clone)]
pub struct Authorizer {
    chain: Vec<Link>,
}

#[derive(Clone)]
enum Link {
    AlwaysAllow,
    Rbac(Arc<Rbac>),
}

impl Authorizer {
    pub fn new(modes: &[AuthorizationMode], rbac: Arc<Rbac>) -> Authorizer {
        let link = |mode: &AuthorizationMode| match mode {
            AuthorizationMode::AlwaysAllow => Some(Link::AlwaysAllow),
            AuthorizationMode::Rbac => Some(Link::Rbac(rbac.clone())),
            // Nobody to say yes: whoever is asked next decides, and in the end the answer is no.
            AuthorizationMode::AlwaysDeny | AuthorizationMode::Node => None,
        };
        Authorizer { chain: modes.iter().filter_map(link).collect() }
    }

    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow(None);
        }
        let mut reasons = Vec::new();
        for link in &self.chain {
            match link {
                Link::AlwaysAllow => return Decision::Allow(None),
                Link::Rbac(rbac) => match rbac.allows(attributes) {
                    Ok(grant) => return Decision::Allow(Some(grant)),
                    Err(reason) => reasons.push(reason),
                },
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision::Deny(reasons.join("\n"))
    }

    /// All that a user may do in a namespace and outside of resources, as far as it can be listed; and what went wrong.
    pub fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for link in &self.chain {
            match link {
                Link::AlwaysAllow => all.extend(Rule::everything()),
                Link::Rbac(rbac) => {
                    let (rules, wrong) = rbac.rules(user, namespace);
                    all.extend(rules);
                    errors.extend(wrong);
                }
            }
        }
        (all, errors)
    }

    /// The error for those who may not.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.authorize(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) => Err(attributes.forbidden(&reason)),
        }
    }
}
