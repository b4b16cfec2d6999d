//! How commands reach a cluster: a kubeconfig, and requests to the server that it names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Kubeconfig;
use crate::object::Fields;

/// The one that a flag names, or else $KUBECONFIG's, or else ~/.kube/config.
pub fn kubeconfig(flag: Option<PathBuf>) -> anyhow::Result<Kubeconfig> {
    let path = match flag {
        Some(path) => path,
        None => default_kubeconfig().context("--kubeconfig: there is no kubeconfig; name one, or set KUBECONFIG")?,
    };
    Ok(Kubeconfig::read(&path)?)
}

fn default_kubeconfig() -> Option<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    match listed {
        Some(value) => std::env::split_paths(&value).find(|path| path.exists()),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()),
    }
}

/// Sends a request; an answer that is no success becomes an error with its message.
pub async fn send(
    kubeconfig: &Kubeconfig,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Response<Incoming>> {
    let uri: http::Uri = kubeconfig.server.parse().context("the server's URL")?;
    let host = uri.host().context("the server's URL names no host")?.trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    let connector = TlsConnector::from(Arc::new(tls(kubeconfig)?));
    let stream = connector.connect(ServerName::try_from(host)?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = http::Request::builder().method(method).uri(path).header(HOST, authority);
    if let Some(token) = &kubeconfig.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let body = response.into_body().collect().await?.to_bytes();
    match serde_json::from_slice::<Value>(&body) {
        Ok(status) if !status.text_at(&["message"]).is_empty() => bail!("{}", status.text_at(&["message"])),
        _ => bail!("{code}; is it Kontiki?"),
    }
}

pub async fn get_json(kubeconfig: &Kubeconfig, path: &str) -> anyhow::Result<Value> {
    let response = send(kubeconfig, Method::GET, path, Bytes::new()).await?;
    let body = response.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).context("the answer is no JSON; is it Kontiki?")
}

fn tls(kubeconfig: &Kubeconfig) -> anyhow::Result<ClientConfig> {
    let Some(authority) = &kubeconfig.certificate_authority else {
        bail!("the kubeconfig has no certificate-authority: the server can't be told from another");
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.context("certificate-authority")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match &kubeconfig.client {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("client-key")?;
            builder.with_client_auth_cert(chain.context("client-certificate")?, key)?
        }
        None => builder.with_no_client_auth(),
    })
}
