//! Tokens of service accounts: signed here, and good as long as the account is there and what the token is bound to.

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kontiki_storage::View;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::User;
use crate::config::{self, ConfigError};
use crate::object::Fields;
use crate::time;

/// How long a token outlives what it is bound to once that is being deleted, in seconds.
const GRACE: i64 = 60;

pub struct ServiceAccounts {
    pub issuers: Vec<String>,
    /// A token names one of these, unless it was asked for something else.
    pub audiences: Vec<String>,
    /// In seconds.
    pub max_expiration: Option<i64>,
    signer: EncodingKey,
    header: Header,
    /// The signer's own is the first.
    keys: Vec<Key>,
}

/// A key that tokens are verified with.
struct Key {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    /// As `/openid/v1/jwks` tells it.
    jwk: Value,
}

/// What a token says; the fields are those of upstream's tokens.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Audiences,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Bound>,
    serviceaccount: Bound,
}

/// An object by name and identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub name: String,
    pub uid: String,
}

/// What a token is to say.
#[derive(Debug)]
pub struct Grant {
    pub namespace: String,
    pub account: Bound,
    pub pod: Option<Bound>,
    pub secret: Option<Bound>,
    pub node: Option<Bound>,
    pub audiences: Vec<String>,
    /// Unix seconds.
    pub issued: i64,
    pub expires: i64,
}

impl ServiceAccounts {
    /// `own_key` is the cluster's, PEM; it signs unless the flags name another.
    pub fn new(flags: &config::ServiceAccounts, own_key: &str) -> Result<ServiceAccounts, ConfigError> {
        const SIGNS: &str = "--service-account-signing-key-file";
        const VERIFIES: &str = "--service-account-key-file";
        let fix = "give a file with RSA or ECDSA keys in PEM";
        let error = |flag: &'static str, path: &Path, problem: String| ConfigError {
            flag,
            problem: format!("{}: {problem}", path.display()),
            fix: fix.into(),
        };
        let read = |flag, path: &Path| std::fs::read_to_string(path).map_err(|e| error(flag, path, e.to_string()));
        let (path, private) = match &flags.signing_key_file {
            Some(path) => (path.as_path(), read(SIGNS, path)?),
            None => (Path::new("sa.key"), own_key.to_owned()),
        };
        let own = Key::read(&private).map_err(|problem| error(SIGNS, path, problem))?;
        let signer = match own.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&pkcs8(&private)),
            _ => EncodingKey::from_ec_pem(&pkcs8(&private)),
        };
        let signer = signer.map_err(|e| error(SIGNS, path, e.to_string()))?;
        let header = Header { typ: None, kid: Some(own.id.clone()), ..Header::new(own.algorithm) };
        let mut keys = vec![own];
        for path in &flags.key_files {
            for key in pem_blocks(&read(VERIFIES, path)?) {
                keys.push(Key::read(&key).map_err(|problem| error(VERIFIES, path, problem))?);
            }
        }
        Ok(ServiceAccounts {
            issuers: flags.issuers.clone(),
            audiences: flags.audiences.clone(),
            max_expiration: flags.max_expiration.map(|max| i64::try_from(max.as_secs()).unwrap_or(i64::MAX)),
            signer,
            header,
            keys,
        })
    }

    pub fn sign(&self, grant: Grant) -> Result<String, jsonwebtoken::errors::Error> {
        let Grant { namespace, account, pod, secret, node, audiences, issued, expires } = grant;
        let claims = Claims {
            aud: Audiences::Several(audiences),
            exp: expires,
            iat: issued,
            iss: self.issuers.first().cloned().unwrap_or_default(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: issued,
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
            kubernetes: Private { namespace, node, pod, secret, serviceaccount: account },
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signer)
    }

    /// Whom a token is of, and which of the audiences it is for; the error says what is wrong with it. None for what is
    /// none of our tokens.
    pub fn verify(
        &self,
        view: &View,
        token: &str,
        audiences: &[String],
    ) -> Option<Result<(User, Vec<String>), String>> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let issuer = jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token).ok()?.iss;
        self.issuers.contains(&issuer).then(|| {
            let claims = self.claims(token, &header)?;
            let named = match claims.aud {
                Audiences::One(one) => vec![one],
                Audiences::Several(several) => several,
            };
            let meant: Vec<String> = audiences.iter().filter(|audience| named.contains(audience)).cloned().collect();
            if meant.is_empty() {
                return Err(format!("token audiences {named:?} is invalid for the target audiences {audiences:?}"));
            }
            let user = claims.kubernetes.user(view, &claims.jti)?;
            Ok((user, meant))
        })
    }

    fn claims(&self, token: &str, header: &Header) -> Result<Claims, String> {
        let suits = |key: &&Key| key.algorithm == header.alg && header.kid.as_ref().is_none_or(|id| *id == key.id);
        let mut problem = "invalid bearer token".to_owned();
        for key in self.keys.iter().filter(suits) {
            let mut validation = Validation::new(key.algorithm);
            validation.leeway = 0;
            validation.validate_nbf = true;
            // Which of them it names is looked at where it is known what it is used for.
            validation.validate_aud = false;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => problem = format!("service account token: {error}"),
            }
        }
        Err(problem)
    }

    /// `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        let mut keys: Vec<&Value> = Vec::new();
        for key in &self.keys {
            if !keys.contains(&&key.jwk) {
                keys.push(&key.jwk);
            }
        }
        json!({ "keys": keys })
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery(&self, address: &str) -> Value {
        let mut algorithms: Vec<String> = self.keys.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        algorithms.sort();
        algorithms.dedup();
        json!({
            "issuer": self.issuers.first(),
            "jwks_uri": format!("https://{address}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl Private {
    /// The user that a token names, if all that it is bound to is still there.
    fn user(&self, view: &View, id: &str) -> Result<User, String> {
        let namespace = &self.namespace;
        let account = &self.serviceaccount;
        check(view, "service account", &format!("serviceaccounts/{namespace}/{}", account.name), account)?;
        for (what, table, bound) in [("secret", "secrets", &self.secret), ("pod", "pods", &self.pod)] {
            if let Some(bound) = bound {
                check(view, what, &format!("{table}/{namespace}/{}", bound.name), bound)?;
            }
        }
        // Beside a pod the node is only told: pods may outlive it.
        if let (Some(node), None) = (&self.node, &self.pod) {
            check(view, "node", &format!("nodes/{}", node.name), node)?;
        }
        let mut user = User {
            name: format!("system:serviceaccount:{namespace}:{}", account.name),
            uid: account.uid.clone(),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
            extra: [("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")])].into(),
        };
        for (kind, bound) in [("pod", &self.pod), ("node", &self.node)] {
            if let Some(bound) = bound {
                user.extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![bound.name.clone()]);
                if !bound.uid.is_empty() {
                    user.extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![bound.uid.clone()]);
                }
            }
        }
        Ok(user.authenticated())
    }
}

fn check(view: &View, what: &str, key: &str, bound: &Bound) -> Result<(), String> {
    let invalid = |why: &str| format!("service account token: {what} {:?} {why}", bound.name);
    let record = view.get(key).ok_or_else(|| invalid("is not there"))?;
    let object: Value = serde_json::from_slice(&record.value).map_err(|e| e.to_string())?;
    if object.text_at(&["metadata", "uid"]) != bound.uid {
        return Err(invalid("is another than the token was made for"));
    }
    let deleted = time::parse(object.text_at(&["metadata", "deletionTimestamp"])).ok();
    match deleted {
        Some(deleted) if deleted.unix() + GRACE < time::Time::now().unix() => Err(invalid("has been deleted")),
        _ => Ok(()),
    }
}

impl Key {
    /// From a private or public key in PEM.
    fn read(pem: &str) -> Result<Key, String> {
        let public = match pem.contains("PRIVATE KEY") {
            true => KeyPair::from_pem(pem).map_err(|e| e.to_string())?.public_key_pem(),
            false => pem.to_owned(),
        };
        let (_, block) = x509_parser::pem::parse_x509_pem(public.as_bytes()).map_err(|e| e.to_string())?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|e| e.to_string())?;
        let id = base64_url(&Sha256::digest(&block.contents));
        let parsed = info.parsed().map_err(|e| e.to_string())?;
        let (algorithm, key, mut jwk) = match &parsed {
            PublicKey::RSA(rsa) => {
                let strip = |bytes: &[u8]| base64_url(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]);
                let jwk = json!({"kty": "RSA", "n": strip(rsa.modulus), "e": strip(rsa.exponent)});
                (Algorithm::RS256, DecodingKey::from_rsa_pem(public.as_bytes()), jwk)
            }
            PublicKey::EC(point) => {
                let (algorithm, curve) = match point.key_size() {
                    0..=256 => (Algorithm::ES256, "P-256"),
                    257..=384 => (Algorithm::ES384, "P-384"),
                    _ => return Err("keys on curves other than P-256 and P-384 can't be used".into()),
                };
                let coordinates = point.data().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let jwk = json!({"kty": "EC", "crv": curve, "x": base64_url(x), "y": base64_url(y)});
                (algorithm, DecodingKey::from_ec_pem(public.as_bytes()), jwk)
            }
            _ => return Err("is neither an RSA nor an ECDSA key".into()),
        };
        let key = key.map_err(|e| e.to_string())?;
        for (field, value) in [("use", "sig"), ("kid", id.as_str()), ("alg", &format!("{algorithm:?}"))] {
            jwk.set(&[field], value);
        }
        Ok(Key { id, algorithm, key, jwk })
    }
}

/// The private key in the form that all libraries read.
fn pkcs8(pem: &str) -> Vec<u8> {
    KeyPair::from_pem(pem).map_or_else(|_| pem.to_owned(), |key| key.serialize_pem()).into_bytes()
}

/// The PEM blocks of a file, one by one.
fn pem_blocks(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN ";
    text.split(BEGIN)
        .skip(1)
        .filter(|block| block.contains("KEY-----"))
        .map(|block| format!("{BEGIN}{block}"))
        .collect()
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
