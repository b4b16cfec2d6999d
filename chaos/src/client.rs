//! An API client that is told by a kubeconfig. It sends again only what a GOAWAY without error says was not taken
//! (RFC 9113, 8.7), as Go's clients do: hyper gives up even what it had not begun to send when the GOAWAY came.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;

/// How often one request is sent at most.
const TRIES: usize = 3;
/// Requests that were sent again.
pub static SENT_AGAIN: AtomicU64 = AtomicU64::new(0);

/// What a kubeconfig's current context says.
#[derive(Clone)]
pub struct Access {
    pub server: String,
    tls: rustls::ClientConfig,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(rename = "current-context")]
    current: String,
    contexts: Vec<Named<ContextEntry>>,
    clusters: Vec<Named<ClusterEntry>>,
    users: Vec<Named<UserEntry>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    value: T,
}

#[derive(Deserialize, Clone)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
    token: Option<String>,
}

fn named<T: Clone>(list: &[Named<T>], name: &str) -> anyhow::Result<T> {
    let found = list.iter().find(|entry| entry.name == name);
    found.map(|entry| entry.value.clone()).with_context(|| format!("the kubeconfig has no entry {name:?}"))
}

fn pem(data: Option<&str>, file: Option<&str>) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(match (data, file) {
        (Some(data), _) => Some(BASE64_STANDARD.decode(data)?),
        (None, Some(file)) => Some(std::fs::read(file).with_context(|| file.to_owned())?),
        (None, None) => None,
    })
}

impl Access {
    pub fn read(path: &Path) -> anyhow::Result<Access> {
        let text = std::fs::read_to_string(path).with_context(|| format!("kubeconfig {}", path.display()))?;
        let config: Kubeconfig = serde_yaml_ng::from_str(&text)?;
        let context = named(&config.contexts, &config.current)?;
        let cluster = named(&config.clusters, &context.cluster)?;
        let user = named(&config.users, &context.user)?;
        let mut roots = rustls::RootCertStore::empty();
        let ca = pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref())?;
        for certificate in CertificateDer::pem_slice_iter(&ca.context("the kubeconfig names no CA")?) {
            roots.add(certificate?)?;
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots);
        let certificate = pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
        let key = pem(user.client_key_data.as_deref(), user.client_key.as_deref())?;
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
                tls.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
            }
            _ => tls.with_no_client_auth(),
        };
        Ok(Access { server: cluster.server.trim_end_matches('/').to_owned(), tls, token: user.token })
    }

    /// The same identity at another address.
    pub fn at(&self, server: &str) -> Access {
        Access { server: server.to_owned(), ..self.clone() }
    }

    /// A client with connections of its own.
    pub fn client(&self) -> Client {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_only().enable_all_versions();
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(Duration::from_secs(2)));
        let client = legacy::Client::builder(TokioExecutor::new())
            .http2_keep_alive_interval(Duration::from_secs(1))
            .http2_keep_alive_timeout(Duration::from_secs(2))
            .timer(hyper_util::rt::TokioTimer::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector.wrap_connector(http));
        Client { server: Arc::from(self.server.as_str()), token: self.token.clone(), client }
    }
}

#[derive(Clone)]
pub struct Client {
    server: Arc<str>,
    token: Option<String>,
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    pub fn ok(self) -> anyhow::Result<Answer> {
        if !self.status.is_success() {
            bail!("{}: {}", self.status, String::from_utf8_lossy(&self.body).chars().take(400).collect::<String>());
        }
        Ok(self)
    }
}

fn not_taken(error: &legacy::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|error| error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR))
}

async fn sent<C: Connect + Clone + Send + Sync + 'static>(
    client: &legacy::Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, legacy::Error> {
    for _ in 1..TRIES {
        match client.request(request.clone()).await {
            Err(error) if not_taken(&error) => SENT_AGAIN.fetch_add(1, Ordering::Relaxed),
            answered => return answered,
        };
    }
    client.request(request).await
}

impl Client {
    /// The answer with its body still to come.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request = request.header(http::header::USER_AGENT, "kontiki-chaos");
        Ok(sent(&self.client, request.body(Full::new(body))?).await?)
    }

    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Answer> {
        let response = self.open(method, path, content_type, body).await?;
        let status = response.status();
        Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, "application/json", serde_json::to_vec(body)?.into()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, "application/json", serde_json::to_vec(body)?.into()).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, "", Bytes::new()).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Leaves so many connections when a request has come, and says that it was not taken.
    async fn refuses(connections: usize) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                stream.read_exact(&mut [0; 24]).await.unwrap();
                let mut header = [0; 9];
                while header[3] != 1 {
                    stream.read_exact(&mut header).await.unwrap();
                    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                    stream.read_exact(&mut vec![0; length]).await.unwrap();
                }
                stream.write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut answer))) = connection.accept().await {
                    answer.send_response(http::Response::new(()), true).unwrap();
                }
            }
        });
        server
    }

    #[tokio::test]
    async fn what_was_not_taken_is_sent_again_but_not_for_ever() {
        for (refused, answered) in [(0, true), (TRIES - 1, true), (TRIES, false)] {
            let server = refuses(refused).await;
            let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
            let request = Request::post(&server).body(Full::new(Bytes::from("x"))).unwrap();
            assert_eq!(sent(&client, request).await.is_ok(), answered, "{refused}");
        }
    }
}
