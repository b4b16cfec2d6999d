//! Impersonation: a request is made in another's name, if the user may do that.

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::authorize::Target;
use super::{ANONYMOUS, Attributes, Authorizer, UNAUTHENTICATED, User};
use crate::field::go_quote;
use crate::status::{ApiError, Result};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the headers name; none where they name nobody.
pub fn impersonated(user: &User, headers: &HeaderMap, authorizer: &Authorizer) -> Result<Option<User>> {
    // Never skipped because of its bytes: the request would run as whoever sent it.
    let read = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text = |name| headers.get(name).map(read).unwrap_or_default();
    let mut wanted = User { name: text(USER), uid: text(UID), ..User::default() };
    for (name, value) in headers {
        let value = read(value);
        if name == GROUP {
            wanted.groups.push(value);
        } else if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            wanted.extra.entry(key).or_default().push(value);
        }
    }
    if wanted == User::default() {
        return Ok(None);
    }
    if wanted.name.is_empty() {
        return Err(ApiError::bad_request(format!("requested {} without impersonating a user name", shown(&wanted))));
    }
    check(user, &wanted, authorizer)?;
    let account = service_account(&wanted.name);
    if let Some((namespace, _)) = account.filter(|_| wanted.groups.is_empty()) {
        wanted.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    if wanted.name == ANONYMOUS && !wanted.in_group(UNAUTHENTICATED) {
        wanted.groups.push(UNAUTHENTICATED.to_owned());
    }
    Ok(Some(wanted.authenticated()))
}

/// As Go prints a `user.DefaultInfo` with `%#v`, which is what the client reads.
fn shown(user: &User) -> String {
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| go_quote(item)).collect();
        format!("{{{}}}", items.join(", "))
    };
    let groups = if user.groups.is_empty() { "(nil)".to_owned() } else { list(&user.groups) };
    let extra = if user.extra.is_empty() {
        "(nil)".to_owned()
    } else {
        let items = user.extra.iter().map(|(key, values)| format!("{}:[]string{}", go_quote(key), list(values)));
        format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
    };
    let (name, uid) = (go_quote(&user.name), go_quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:[]string{groups}, Extra:map[string][]string{extra}}}")
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Each thing that is impersonated is asked for.
fn check(user: &User, wanted: &User, authorizer: &Authorizer) -> Result<()> {
    let may = |group, resource, subresource, namespace, name| {
        let what = Target::Resource { group, resource, subresource, namespace, name };
        authorizer.check(&Attributes { user, verb: "impersonate", what })
    };
    match service_account(&wanted.name) {
        Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
        None => may("", "users", "", "", &wanted.name)?,
    }
    for group in &wanted.groups {
        may("", "groups", "", "", group)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may(AUTHENTICATION, "userextras", key, "", value)?;
        }
    }
    if !wanted.uid.is_empty() {
        may(AUTHENTICATION, "uids", "", "", &wanted.uid)?;
    }
    Ok(())
}
