//! `paths`: the operations of a version's resources.

use serde_json::{Map, Value, json};

use super::components::Components;
use super::parameters::{self, Parameter};
use crate::discovery::{Resource, Subresource, Verbs, Version};

const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const ANYTHING: &[&str] = &["*/*"];

struct Operation {
    method: &'static str,
    /// `x-kubernetes-action`; none for discovery.
    action: &'static str,
    id: String,
    description: String,
    parameters: Vec<&'static Parameter>,
    /// Media types, schema, and whether it must be there.
    body: Option<(&'static [&'static str], Value, bool)>,
    /// Media types and schema of each good answer.
    produces: &'static [&'static str],
    answer: Value,
    codes: &'static [u16],
}

/// Writes the operations of one version into `paths`.
pub(super) struct Writer<'w, 'c> {
    pub(super) components: &'w mut Components<'c>,
    pub(super) paths: Map<String, Value>,
    prefix: String,
    /// `AppsV1`, which operation ids carry.
    title: String,
    tag: String,
    group: &'w str,
    version: &'w Version,
}

impl<'w, 'c> Writer<'w, 'c> {
    pub(super) fn new(components: &'w mut Components<'c>, group: &'w str, version: &'w Version) -> Self {
        let prefix = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let words = group_words(group);
        Writer {
            components,
            paths: Map::new(),
            prefix: format!("{prefix}/{}", version.name),
            title: format!("{}{}", words.concat(), capitalized(&version.name)),
            tag: format!("{}_{}", group_tag(group), version.name),
            group,
            version,
        }
    }

    pub(super) fn version(&mut self) {
        let answer = self.components.meta("APIResourceList");
        let id = format!("get{}APIResources", self.title);
        let discovery = discovery_operation(id, "get available resources", OBJECTS, answer);
        let path = format!("{}/", self.prefix);
        self.item(path, "", vec![discovery], &[], None);
        for resource in &self.version.resources {
            self.resource(resource);
            for sub in &resource.subresources {
                self.subresource(resource, sub);
            }
        }
    }

    fn resource(&mut self, resource: &Resource) {
        let (kind, plural) = (&*resource.kind, &*resource.plural);
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let space = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let has = |verb| resource.verbs.has(verb);
        let object = self.components.kind(self.group, &self.version.name, kind);
        let mut collection = Vec::new();
        let listed = if has(Verbs::WATCH) { "list or watch" } else { "list" };
        if has(Verbs::LIST) {
            collection.push(self.list(resource, format!("list{}{scope}{kind}", self.title), listed));
        }
        if has(Verbs::CREATE) {
            let description = format!("create {}", with_article(kind));
            let id = format!("create{}{scope}{kind}", self.title);
            collection.push(write_operation("post", id, description, object.clone(), &[200, 201, 202]));
        }
        if has(Verbs::DELETE_COLLECTION) {
            collection.push(Operation {
                id: format!("delete{}Collection{scope}{kind}", self.title),
                description: format!("delete collection of {kind}"),
                action: "deletecollection",
                parameters: parameters::DELETE_COLLECTION.iter().collect(),
                codes: &[200],
                answer: self.components.meta("Status"),
                ..self.delete()
            });
        }
        let gvk = (self.group, &*self.version.name, kind);
        let path = format!("{}{space}/{plural}", self.prefix);
        self.item(path, kind, collection, &[], Some(gvk));

        let mut item = Vec::new();
        let path = format!("{}{space}/{plural}/{{name}}", self.prefix);
        if has(Verbs::GET) {
            let id = format!("read{}{scope}{kind}", self.title);
            item.push(read_operation(id, format!("read the specified {kind}"), OBJECTS, object.clone()));
        }
        if has(Verbs::UPDATE) {
            let id = format!("replace{}{scope}{kind}", self.title);
            let description = format!("replace the specified {kind}");
            item.push(write_operation("put", id, description, object.clone(), &[200, 201]));
        }
        if has(Verbs::DELETE) {
            item.push(Operation {
                id: format!("delete{}{scope}{kind}", self.title),
                description: format!("delete {}", with_article(kind)),
                answer: if resource.returns_deleted { object.clone() } else { self.components.meta("Status") },
                ..self.delete()
            });
        }
        if has(Verbs::PATCH) {
            let id = format!("patch{}{scope}{kind}", self.title);
            item.push(self.patch(id, format!("partially update the specified {kind}"), object.clone()));
        }
        self.item(path, kind, item, &[], Some(gvk));

        if resource.namespaced && has(Verbs::LIST) {
            let list = self.list(resource, format!("list{}{kind}ForAllNamespaces", self.title), listed);
            self.item(format!("{}/{plural}", self.prefix), kind, vec![list], &[], Some(gvk));
        }
        if has(Verbs::WATCH) {
            let paths = [
                (resource.namespaced, format!("/watch/{plural}"), format!("{kind}ListForAllNamespaces"), "watchlist"),
                (true, format!("/watch{space}/{plural}"), format!("{scope}{kind}List"), "watchlist"),
                (true, format!("/watch{space}/{plural}/{{name}}"), format!("{scope}{kind}"), "watch"),
            ];
            for (_, path, name, action) in paths.into_iter().filter(|(served, ..)| *served) {
                let watch = self.watch(kind, format!("watch{}{name}", self.title), action);
                self.item(format!("{}{path}", self.prefix), kind, vec![watch], &[], Some(gvk));
            }
        }
    }

    fn subresource(&mut self, resource: &Resource, sub: &Subresource) {
        let kind = &*resource.kind;
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let space = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let name = format!("{scope}{kind}{}", capitalized(&sub.name));
        let path = format!("{}{space}/{}/{{name}}/{}", self.prefix, resource.plural, sub.name);
        let gvk = (&*sub.kind.group, &*sub.kind.version, &*sub.kind.kind);
        if let Some(options) = parameters::connection(&sub.kind.kind) {
            let proxy = sub.verbs.has(Verbs::UPDATE);
            self.item(path.clone(), kind, self.connect(kind, sub, &name, proxy), options, Some(gvk));
            if proxy {
                let mut all = options.to_vec();
                all.push(&parameters::PROXY_PATH);
                let operations = self.connect(kind, sub, &format!("{name}WithPath"), proxy);
                self.item(format!("{path}/{{path}}"), kind, operations, &all, Some(gvk));
            }
            return;
        }
        let object = self.components.kind(gvk.0, gvk.1, gvk.2);
        let mut operations = Vec::new();
        let mut options: &[&Parameter] = &[];
        if sub.verbs.has(Verbs::CREATE) {
            let id = format!("create{}{name}", self.title);
            let description = format!("create {} of {}", sub.name, with_article(kind));
            operations.push(write_operation("post", id, description, object.clone(), &[200, 201, 202]));
        }
        if sub.verbs.has(Verbs::GET) {
            let id = format!("read{}{name}", self.title);
            let description = format!("read {} of the specified {kind}", sub.name);
            if sub.name == "log" {
                options = &parameters::LOG;
                let media =
                    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
                operations.push(read_operation(id, description, media, json!({"type": "string"})));
            } else {
                operations.push(read_operation(id, description, OBJECTS, object.clone()));
            }
        }
        if sub.verbs.has(Verbs::UPDATE) {
            let id = format!("replace{}{name}", self.title);
            let description = format!("replace {} of the specified {kind}", sub.name);
            operations.push(write_operation("put", id, description, object.clone(), &[200, 201]));
        }
        if sub.verbs.has(Verbs::PATCH) {
            let id = format!("patch{}{name}", self.title);
            operations.push(self.patch(id, format!("partially update {} of the specified {kind}", sub.name), object));
        }
        self.item(path, kind, operations, options, Some(gvk));
    }

    fn list(&mut self, resource: &Resource, id: String, listed: &str) -> Operation {
        Operation {
            action: "list",
            parameters: parameters::LIST.iter().collect(),
            ..read_operation(
                id,
                format!("{listed} objects of kind {}", resource.kind),
                STREAMS,
                self.components.kind(self.group, &self.version.name, &resource.list_kind),
            )
        }
    }

    fn watch(&mut self, kind: &str, id: String, action: &'static str) -> Operation {
        let instead = "deprecated: use the 'watch' parameter with a list operation instead";
        let description = match action {
            "watch" => format!(
                "watch changes to an object of kind {kind}. {instead}, filtered to a single item with the 'fieldSelector' parameter."
            ),
            _ => format!("watch individual changes to a list of {kind}. {instead}."),
        };
        let events = self.components.meta("WatchEvent");
        Operation {
            action,
            parameters: parameters::LIST.iter().collect(),
            ..read_operation(id, description, STREAMS, events)
        }
    }

    fn delete(&mut self) -> Operation {
        Operation {
            method: "delete",
            action: "delete",
            id: String::new(),
            description: String::new(),
            parameters: parameters::DELETE.iter().collect(),
            body: Some((ANYTHING, self.components.meta("DeleteOptions"), false)),
            produces: OBJECTS,
            answer: Value::Null,
            codes: &[200, 202],
        }
    }

    fn patch(&mut self, id: String, description: String, object: Value) -> Operation {
        let mut operation = write_operation("patch", id, description, object, &[200, 201]);
        operation.parameters.push(&parameters::FORCE);
        operation.body = Some((PATCHES, self.components.patch(), true));
        operation
    }

    fn connect(&self, kind: &str, sub: &Subresource, name: &str, proxy: bool) -> Vec<Operation> {
        let methods: &[&'static str] =
            if proxy { &["delete", "get", "head", "options", "patch", "post", "put"] } else { &["get", "post"] };
        let operations = methods.iter().map(|method| Operation {
            method,
            action: "connect",
            id: format!("connect{}{}{name}", self.title, capitalized(method)),
            description: format!("connect {} requests to {} of {kind}", method.to_uppercase(), sub.name),
            parameters: Vec::new(),
            body: None,
            produces: ANYTHING,
            answer: json!({"type": "string"}),
            codes: &[200],
        });
        operations.collect()
    }

    /// Adds a path. What all its operations take as parameters is said once.
    fn item(
        &mut self,
        path: String,
        kind: &str,
        operations: Vec<Operation>,
        options: &[&Parameter],
        gvk: Option<(&str, &str, &str)>,
    ) {
        if operations.is_empty() {
            return;
        }
        let mut shared: Vec<Value> = options.iter().map(|parameter| parameter.to_value()).collect();
        let everywhere = |parameter: &Parameter| {
            operations.iter().all(|other| other.parameters.iter().any(|p| p.name == parameter.name))
        };
        let common: Vec<&Parameter> =
            operations[0].parameters.iter().copied().filter(|parameter| everywhere(parameter)).collect();
        shared.extend(common.iter().map(|parameter| parameter.to_value()));
        if path.contains("{name}") {
            shared.push(parameters::in_path("name", &format!("name of the {kind}")));
        }
        if path.contains("{namespace}") {
            shared.push(parameters::in_path("namespace", "object name and auth scope, such as for teams and projects"));
        }
        if gvk.is_some() && operations.iter().any(|operation| operation.action != "connect") {
            shared.push(parameters::PRETTY.to_value());
        }
        let mut item = Map::new();
        for operation in operations {
            let method = operation.method;
            item.insert(method.to_owned(), self.operation(operation, &common, gvk));
        }
        if !shared.is_empty() {
            item.insert("parameters".to_owned(), shared.into());
        }
        self.paths.insert(path, item.into());
    }

    fn operation(&self, operation: Operation, common: &[&Parameter], gvk: Option<(&str, &str, &str)>) -> Value {
        let mut out = operation_value(&self.tag, &operation, common);
        if let Some((group, version, kind)) = gvk {
            out["x-kubernetes-action"] = operation.action.into();
            out["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
        }
        out
    }
}

/// A path that can only be read: discovery, the version.
pub(super) fn discovery_path(
    tag: &str,
    id: String,
    description: &str,
    media: &'static [&'static str],
    answer: Value,
) -> Value {
    json!({"get": operation_value(tag, &discovery_operation(id, description, media, answer), &[])})
}

/// `/apis/GROUP` and `/api`.
pub(super) fn group_path(group: &str, answer: Value) -> Value {
    let (id, description) = match group {
        "" => ("getCoreAPIVersions".to_owned(), "get available API versions"),
        _ => (format!("get{}APIGroup", group_words(group).concat()), "get information of a group"),
    };
    discovery_path(&group_tag(group), id, description, OBJECTS, answer)
}

/// `/apis`.
pub(super) fn groups_path(answer: Value) -> Value {
    discovery_path("apis", "getAPIVersions".to_owned(), "get available API versions", OBJECTS, answer)
}

fn operation_value(tag: &str, operation: &Operation, common: &[&Parameter]) -> Value {
    let content = |media: &[&str], schema: &Value| -> Map<String, Value> {
        media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
    };
    let mut responses = Map::new();
    for code in operation.codes {
        let text = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        let content = content(operation.produces, &operation.answer);
        responses.insert(code.to_string(), json!({"description": text, "content": content}));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut out = json!({
        "tags": [tag],
        "description": operation.description,
        "operationId": operation.id,
        "responses": responses,
    });
    let own = operation.parameters.iter().filter(|p| !common.iter().any(|c| c.name == p.name));
    let own: Vec<Value> = own.map(|parameter| parameter.to_value()).collect();
    if !own.is_empty() {
        out["parameters"] = own.into();
    }
    if let Some((media, schema, required)) = &operation.body {
        out["requestBody"] = json!({"content": content(media, schema)});
        if *required {
            out["requestBody"]["required"] = true.into();
        }
    }
    out
}

fn discovery_operation(id: String, description: &str, media: &'static [&'static str], answer: Value) -> Operation {
    read_operation(id, description.to_owned(), media, answer)
}

fn read_operation(id: String, description: String, media: &'static [&'static str], answer: Value) -> Operation {
    Operation {
        method: "get",
        action: "get",
        id,
        description,
        parameters: Vec::new(),
        body: None,
        produces: media,
        answer,
        codes: &[200],
    }
}

fn write_operation(
    method: &'static str,
    id: String,
    description: String,
    object: Value,
    codes: &'static [u16],
) -> Operation {
    Operation {
        method,
        action: method,
        id,
        description,
        parameters: parameters::WRITE.iter().collect(),
        body: Some((ANYTHING, object.clone(), true)),
        produces: OBJECTS,
        answer: object,
        codes,
    }
}

/// `rbac.authorization.k8s.io` as `Rbac`, `Authorization`.
fn group_words(group: &str) -> Vec<String> {
    match group {
        "" => vec!["Core".to_owned()],
        _ => group.strip_suffix(".k8s.io").unwrap_or(group).split('.').map(capitalized).collect(),
    }
}

fn group_tag(group: &str) -> String {
    let words = group_words(group).concat();
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `a Pod`, `an Ingress`, `Endpoints`.
fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
