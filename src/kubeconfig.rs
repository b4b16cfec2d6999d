//! Kubeconfig files: written for the administrator, read by `kontiki status`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// One way into a cluster: the current context of a file, with what it refers to read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    pub server: String,
    /// PEM; None: not checked.
    pub certificate_authority: Option<String>,
    /// Certificate and key, PEM.
    pub client: Option<(String, String)>,
    pub token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct Error {
    pub path: PathBuf,
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(rename = "Kubeconfig")]
struct File {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Kubeconfig, Error> {
        let fail = |problem: String| Error { path: path.into(), problem };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let file: File = serde_yaml_ng::from_str(&text).map_err(|e| fail(format!("is no kubeconfig: {e}")))?;
        let current = file.current_context.as_str();
        let context = file.contexts.into_iter().find(|c| c.name == current).map(|c| c.context);
        let context = context.ok_or_else(|| fail(format!("has no context {current:?} (its current-context)")))?;
        let cluster = file.clusters.into_iter().find(|c| c.name == context.cluster).map(|c| c.cluster);
        let cluster = cluster.ok_or_else(|| fail(format!("has no cluster {:?}", context.cluster)))?;
        let user = file.users.into_iter().find(|u| u.name == context.user).map(|u| u.user).unwrap_or_default();
        // Data goes before files; relative files are beside the kubeconfig.
        let text_of = |data: Option<String>, file: Option<PathBuf>| -> Result<Option<String>, Error> {
            if let Some(data) = data {
                let bytes = STANDARD.decode(data.trim()).map_err(|e| fail(format!("holds damaged base64: {e}")))?;
                return String::from_utf8(bytes).map(Some).map_err(|e| fail(format!("holds damaged PEM: {e}")));
            }
            let Some(file) = file else { return Ok(None) };
            let file = path.parent().unwrap_or(Path::new(".")).join(file);
            std::fs::read_to_string(&file).map(Some).map_err(|e| fail(format!("refers to {}: {e}", file.display())))
        };
        let authority = text_of(cluster.certificate_authority_data, cluster.certificate_authority)?;
        let certificate = text_of(user.client_certificate_data, user.client_certificate)?;
        let key = text_of(user.client_key_data, user.client_key)?;
        let token = match user.token {
            Some(token) => Some(token),
            None => text_of(None, user.token_file)?.map(|token| token.trim().to_owned()),
        };
        Ok(Kubeconfig {
            server: cluster.server,
            certificate_authority: authority.filter(|_| !cluster.insecure_skip_tls_verify),
            client: certificate.zip(key),
            token,
        })
    }

    /// The text of a file with this as its only context.
    pub fn to_yaml(&self, user: &str) -> String {
        let mut text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: kontiki\ncontexts:\n- name: kontiki\n  context:\n    \
             cluster: kontiki\n    user: {user}\nclusters:\n- name: kontiki\n  cluster:\n    server: {}\n",
            self.server
        );
        if let Some(authority) = &self.certificate_authority {
            text += &format!("    certificate-authority-data: {}\n", STANDARD.encode(authority));
        }
        text += &format!("users:\n- name: {user}\n  user:\n");
        if let Some((certificate, key)) = &self.client {
            text += &format!("    client-certificate-data: {}\n", STANDARD.encode(certificate));
            text += &format!("    client-key-data: {}\n", STANDARD.encode(key));
        }
        if let Some(token) = &self.token {
            text += &format!("    token: {token}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let config = Kubeconfig {
            server: "https://127.0.0.1:6443".into(),
            certificate_authority: Some("ca".into()),
            client: Some(("certificate".into(), "key".into())),
            token: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, config.to_yaml("admin")).unwrap();
        assert_eq!(Kubeconfig::read(&path).unwrap(), config);
    }
}
