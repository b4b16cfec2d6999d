//! How commands, and replicas that join, reach a cluster: a kubeconfig, and requests to a server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::ConfigError;
use crate::kubeconfig::Kubeconfig;
use crate::object::Fields;

/// The one that a flag names, or else $KUBECONFIG's, or else ~/.kube/config.
pub fn kubeconfig(flag: Option<PathBuf>) -> anyhow::Result<Kubeconfig> {
    let path = match flag {
        Some(path) => return Ok(Kubeconfig::read(&path).map_err(|error| no_kubeconfig(error.to_string()))?),
        None => default_kubeconfig()?,
    };
    Ok(Kubeconfig::read(&path)?)
}

fn default_kubeconfig() -> anyhow::Result<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let found = match &listed {
        Some(value) => std::env::split_paths(value).find(|path| path.exists()),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()),
    };
    let looked = match &listed {
        Some(value) => format!("none of KUBECONFIG={} exists", value.display()),
        None => "KUBECONFIG is not set, and there is no ~/.kube/config".into(),
    };
    Ok(found.ok_or_else(|| no_kubeconfig(looked))?)
}

fn no_kubeconfig(problem: String) -> ConfigError {
    let fix = "give the cluster's: admin.kubeconfig in --data-dir, or in --pki-dir".into();
    ConfigError { flag: "--kubeconfig", problem, fix }
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    pub code: StatusCode,
    message: String,
}

/// Sends a request with the credentials of a kubeconfig; an answer that is no success becomes [`Failed`].
pub async fn send(
    kubeconfig: &Kubeconfig,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Response<Incoming>> {
    let uri: http::Uri = kubeconfig.server.parse().context("the server's URL")?;
    let host = uri.host().context("the server's URL names no host")?.trim_matches(['[', ']']).to_owned();
    let (name, token) = (ServerName::try_from(host)?, kubeconfig.token.as_deref());
    let sent = exchange(&kubeconfig.server, tls(kubeconfig)?, name, method, path, token, body).await;
    sent.map_err(|error| match tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(_)) => error.context(
            "the server shows a certificate that the kubeconfig's certificate-authority does not vouch for; take the \
             kubeconfig of this cluster (admin.kubeconfig in --data-dir, or in --pki-dir)",
        ),
        _ => error,
    })
}

/// Why TLS failed, where it did: it hides in an I/O error, which doesn't name it as its source.
pub fn tls_error(error: &anyhow::Error) -> Option<&rustls::Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref())
}

/// Sends a request to a server that shows a certificate for `name`.
pub async fn exchange(
    server: &str,
    tls: ClientConfig,
    name: ServerName<'static>,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: impl Into<Bytes>,
) -> anyhow::Result<Response<Incoming>> {
    let uri: http::Uri = server.parse().context("the server's URL")?;
    let host = uri.host().context("the server's URL names no host")?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = http::Request::builder().method(method).uri(path).header(HOST, authority);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Full::new(body.into()))?).await?;
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let message = match serde_json::from_slice::<Value>(&self::body(response).await?) {
        Ok(status) if !status.text_at(&["message"]).is_empty() => status.text_at(&["message"]).to_owned(),
        _ => format!("{code}; is it Kontiki?"),
    };
    Err(Failed { code, message }.into())
}

pub async fn body(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    Ok(response.into_body().collect().await?.to_bytes())
}

pub async fn json(kubeconfig: &Kubeconfig, method: Method, path: &str) -> anyhow::Result<Value> {
    let response = send(kubeconfig, method, path, Bytes::new()).await?;
    serde_json::from_slice(&body(response).await?).context("the answer is no JSON; is it Kontiki?")
}

fn tls(kubeconfig: &Kubeconfig) -> anyhow::Result<ClientConfig> {
    let Some(authority) = &kubeconfig.certificate_authority else {
        bail!("the kubeconfig has no certificate-authority: the server can't be told from another");
    };
    let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authority.as_bytes()).collect();
    let builder = trusting(authorities.context("certificate-authority")?)?;
    Ok(match &kubeconfig.client {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("client-key")?;
            builder.with_client_auth_cert(chain.context("client-certificate")?, key)?
        }
        None => builder.with_no_client_auth(),
    })
}

/// Believes the servers that these authorities vouch for.
pub fn trusting(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).context("certificate-authority")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}
