//! `RequestInfo`: a path and a method taken apart, as authorization, audit and dispatch see them.

use http::Method;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Not on a resource: the method itself is the verb.
    Other,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Other => "",
        }
    }
}

/// Where a request goes. For paths that are no resource only `path` and `verb_name` say something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// As sent, percent-decoded.
    pub path: String,
    pub verb: Verb,
    /// The verb that authorization sees; for paths that are no resource the method in lower case.
    pub verb_name: String,
    pub is_resource: bool,
    pub group: String,
    pub version: String,
    /// Empty where the request isn't within one. For the resource `namespaces` it is the namespace itself.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (proxies).
    pub rest: Vec<String>,
    /// The path is one of what is within a namespace: `namespaces/NAME/RESOURCE`.
    pub within: bool,
    /// The path is of the old form that asks for a watch: `watch/RESOURCE`.
    pub watch_path: bool,
}

/// Subresources of namespaces; anything else after a namespace's name is a resource in it.
const OF_NAMESPACES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    pub fn read(method: &Method, path: &str, query: &super::Query) -> RequestInfo {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let mut info = RequestInfo {
            verb: Verb::Other,
            verb_name: method.as_str().to_ascii_lowercase(),
            is_resource: false,
            group: String::new(),
            version: String::new(),
            namespace: String::new(),
            resource: String::new(),
            subresource: String::new(),
            name: String::new(),
            rest: Vec::new(),
            within: false,
            watch_path: false,
            path: decoded,
        };
        // Taken apart after it is decoded: an escaped slash is one like the others.
        let parts: Vec<String> = info.path.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        let rest = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version = parts[1].clone();
                &parts[2..]
            }
            Some("apis") if parts.len() >= 4 => {
                info.group = parts[1].clone();
                info.version = parts[2].clone();
                &parts[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        let rest = match rest[0].as_str() {
            // The old way to ask for a watch.
            "watch" if rest.len() > 1 => {
                info.watch_path = true;
                &rest[1..]
            }
            _ => rest,
        };
        let rest = match (rest[0].as_str(), rest.len()) {
            ("namespaces", 1) => rest,
            ("namespaces", 2) => {
                info.namespace = rest[1].clone();
                rest
            }
            ("namespaces", _) => {
                info.namespace = rest[1].clone();
                info.within = !OF_NAMESPACES.contains(&rest[2].as_str());
                if info.within { &rest[2..] } else { rest }
            }
            _ => rest,
        };
        info.resource = rest[0].clone();
        info.name = rest.get(1).cloned().unwrap_or_default();
        info.subresource = rest.get(2).cloned().unwrap_or_default();
        info.rest = rest.get(3..).unwrap_or_default().to_vec();
        let whole = info.name.is_empty();
        info.verb = match *method {
            Method::GET | Method::HEAD if info.watch_path => Verb::Watch,
            // Asked of one object, `watch` is no word: only collections are watched.
            Method::GET | Method::HEAD if whole && query.flag("watch") => Verb::Watch,
            Method::GET | Method::HEAD if whole => Verb::List,
            Method::GET | Method::HEAD => Verb::Get,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if whole => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        };
        if info.verb != Verb::Other {
            info.verb_name = info.verb.name().to_owned();
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    fn read(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        RequestInfo::read(&method, path, &Query::read(query))
    }

    #[test]
    fn paths_are_taken_apart() {
        for (method, uri, verb, group, namespace, resource, subresource, name) in [
            (Method::GET, "/api/v1/namespaces", Verb::List, "", "", "namespaces", "", ""),
            (Method::GET, "/api/v1/namespaces/a", Verb::Get, "", "a", "namespaces", "", "a"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", Verb::Update, "", "a", "namespaces", "finalize", "a"),
            (Method::GET, "/api/v1/namespaces/a/pods", Verb::List, "", "a", "pods", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=1", Verb::Watch, "", "a", "pods", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods/p?watch=1", Verb::Get, "", "a", "pods", "", "p"),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p", Verb::Watch, "", "a", "pods", "", "p"),
            (Method::GET, "/apis/apps/v1/deployments", Verb::List, "apps", "", "deployments", "", ""),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                Verb::Patch,
                "apps",
                "a",
                "deployments",
                "scale",
                "d",
            ),
            (Method::DELETE, "/api/v1/namespaces/a/pods", Verb::DeleteCollection, "", "a", "pods", "", ""),
            (Method::POST, "/api/v1/nodes", Verb::Create, "", "", "nodes", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods/p%2Flog", Verb::Get, "", "a", "pods", "log", "p"),
            (Method::GET, "/api/v1/namespaces/a/pods/p%252Flog", Verb::Get, "", "a", "pods", "", "p%2Flog"),
        ] {
            let info = read(method, uri);
            let found = (info.verb, &*info.group, &*info.namespace, &*info.resource, &*info.subresource, &*info.name);
            assert_eq!(found, (verb, group, namespace, resource, subresource, name), "{uri}");
        }
        let info = read(Method::GET, "/version");
        assert_eq!((info.is_resource, &*info.verb_name), (false, "get"));
    }
}
