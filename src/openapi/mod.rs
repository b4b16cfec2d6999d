//! OpenAPI, which clients explain, validate and generate code from: version 3 with a document for each path of
//! discovery, and version 2 with everything in one.
//!
//! Documents are made from the schema table and the registry when the first client asks, one at a time, and kept
//! compressed, so that what stays in memory is small. Making them takes a while: call off the request threads.

mod components;
pub(crate) mod descriptions;
mod parameters;
mod paths;
mod proto;
mod v2;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::discovery::{Registry, Version};
use crate::schema::builtin;
use components::{Components, Kinds};
use descriptions::Descriptions;

/// A document as it goes to clients.
#[derive(Debug)]
pub struct Document {
    pub gzip: Bytes,
    /// Changes with the content: `hash=` in the index's URLs and, in quotes, the ETag.
    pub hash: String,
}

impl Document {
    fn new(bytes: &[u8]) -> Document {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing into memory can't fail.
        let _ = encoder.write_all(bytes);
        Document { gzip: encoder.finish().unwrap_or_default().into(), hash: format!("{:X}", Sha512::digest(bytes)) }
    }

    pub fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }

    /// For clients that take no gzip.
    pub fn plain(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = GzDecoder::new(&*self.gzip).read_to_end(&mut out);
        out
    }
}

/// The documents about one registry.
#[derive(Debug)]
pub struct OpenApi {
    registry: Arc<Registry>,
    v3: OnceLock<BTreeMap<String, Document>>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

impl OpenApi {
    pub fn new(registry: Arc<Registry>) -> OpenApi {
        OpenApi { registry, v3: OnceLock::new(), v2: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }

    /// `/openapi/v3`: where the documents are.
    pub fn index(&self) -> Value {
        let entry = |(path, document): (&String, &Document)| {
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash)}))
        };
        json!({"paths": self.documents().iter().map(entry).collect::<Map<_, _>>()})
    }

    /// `/openapi/v3/PATH`: `apis/apps/v1`.
    pub fn document(&self, path: &str) -> Option<&Document> {
        self.documents().get(path)
    }

    /// `/openapi/v2` in JSON.
    pub fn v2(&self) -> &Document {
        self.v2.get_or_init(|| Document::new(&self.collected().json()))
    }

    /// `/openapi/v2` in protobuf.
    pub fn v2_protobuf(&self) -> &Document {
        self.v2_protobuf.get_or_init(|| Document::new(&self.collected().protobuf()))
    }

    fn collected(&self) -> v2::Collector {
        let mut all = v2::Collector::default();
        each_document(&self.registry, |_, document| all.add(document));
        all
    }

    fn documents(&self) -> &BTreeMap<String, Document> {
        self.v3.get_or_init(|| {
            let mut documents = BTreeMap::new();
            each_document(&self.registry, |path, document| {
                documents.insert(path, Document::new(document.to_string().as_bytes()));
            });
            documents
        })
    }
}

/// Makes the documents of version 3, one after the other.
fn each_document(registry: &Registry, mut take: impl FnMut(String, Value)) {
    let descriptions = Descriptions::load();
    let kinds = components::kinds(builtin());
    let maker = Maker { descriptions: &descriptions, kinds: &kinds };
    for group in registry.groups() {
        let path = if group.name.is_empty() { "api".to_owned() } else { format!("apis/{}", group.name) };
        for version in &group.versions {
            take(format!("{path}/{}", version.name), maker.version(&group.name, version));
        }
        let document = maker.single(&path, |components| {
            let kind = components.meta(if group.name.is_empty() { "APIVersions" } else { "APIGroup" });
            paths::group_path(&group.name, kind)
        });
        take(path, document);
    }
    take("apis".to_owned(), maker.single("apis", |components| paths::groups_path(components.meta("APIGroupList"))));
    let version = maker.single("version", |components| {
        let answer = components.named("io.k8s.apimachinery.pkg.version.Info");
        let (id, text) = ("getCodeVersion".to_owned(), "get the version information for this server");
        paths::discovery_path("version", id, text, &["application/json"], answer)
    });
    take("version".to_owned(), version);
}

struct Maker<'a> {
    descriptions: &'a Descriptions,
    kinds: &'a Kinds,
}

impl Maker<'_> {
    fn version(&self, group: &str, version: &Version) -> Value {
        let mut components = Components::new(builtin(), self.descriptions, self.kinds, group, &version.name);
        let mut writer = paths::Writer::new(&mut components, group, version);
        writer.version();
        let paths = writer.paths;
        document(paths, components)
    }

    /// A document of one path.
    fn single(&self, path: &str, item: impl FnOnce(&mut Components<'_>) -> Value) -> Value {
        let mut components = Components::new(builtin(), self.descriptions, self.kinds, "", "");
        let item = item(&mut components);
        document(Map::from_iter([(format!("/{path}/"), item)]), components)
    }
}

fn document(paths: Map<String, Value>, components: Components<'_>) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths,
        "components": {
            "schemas": components.finish(),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey",
                "description": "Bearer Token authentication",
                "name": "authorization",
                "in": "header",
            }},
        },
    })
}

#[cfg(test)]
mod tests;
