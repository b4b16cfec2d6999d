//! Certificates and keys: made on the first start, kept, and renewed before they expire.
//!
//! What a cluster shares has kubeadm's names: `ca`, `sa` and, since a client of the API must not pass for a replica,
//! a second authority `peer-ca`. What belongs to one replica (`apiserver`, `peer`) is signed by these and lies in its
//! data directory. Files appear whole or not at all, keys with mode 0600.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kontiki_raft::{MEMBER_DNS_NAME, MEMBER_ORGANIZATION, member_common_name};
use kontiki_storage::create_private_dir;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, Pem, X509Certificate};

use crate::kubeconfig::Kubeconfig;

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate with less than this left is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);
/// Clocks of clients may be behind.
const BACKDATED: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct Error {
    pub path: PathBuf,
    pub problem: String,
}

fn fail(path: &Path, problem: impl ToString) -> Error {
    Error { path: path.into(), problem: problem.to_string() }
}

/// A certificate authority, or several of them while one takes the place of another: the first signs, all are trusted. Its
/// key may be elsewhere; then it vouches for what was signed and signs nothing new.
pub struct Authority {
    path: PathBuf,
    pub certificate: String,
    issuer: Option<Issuer<'static, KeyPair>>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a certificate is to say.
struct Leaf<'a> {
    name: &'a str,
    organization: Option<&'a str>,
    /// DNS names and addresses.
    hosts: &'a [String],
    uses: &'a [ExtendedKeyUsagePurpose],
}

/// What all replicas of a cluster have in common.
pub struct ClusterPki {
    pub dir: PathBuf,
    pub authority: Authority,
    pub peer_authority: Authority,
    /// Signs service account tokens, PEM.
    pub service_account_key: String,
}

/// What one replica has for itself.
pub struct ReplicaPki {
    pub serving: Pair,
    pub peer: Pair,
}

impl ClusterPki {
    /// Makes what is missing in `dir`.
    pub fn create(dir: &Path) -> Result<ClusterPki, Error> {
        create_private_dir(dir).map_err(|e| fail(dir, e))?;
        for (file, name) in [("ca", "kubernetes"), ("peer-ca", "kontiki-peers")] {
            if !dir.join(format!("{file}.crt")).exists() {
                Authority::create(dir, file, name)?;
            }
        }
        let path = dir.join("sa.key");
        if !path.exists() {
            let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
            let key = key.map_err(|e| fail(&path, e))?;
            write(&dir.join("sa.pub"), &key.public_key_pem(), 0o644)?;
            write(&path, &key.serialize_pem(), 0o600)?;
        }
        ClusterPki::open(dir)
    }

    pub fn open(dir: &Path) -> Result<ClusterPki, Error> {
        Ok(ClusterPki {
            dir: dir.into(),
            authority: Authority::open(dir, "ca")?,
            peer_authority: Authority::open(dir, "peer-ca")?,
            service_account_key: read(&dir.join("sa.key"))?,
        })
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Writes the administrator's kubeconfig, unless the one that is there is still good for this server.
    /// Without `server` the one that it names stays.
    pub fn ensure_admin(&self, path: &Path, server: Option<&str>) -> Result<(), Error> {
        let leaf = Leaf {
            name: "kubernetes-admin",
            organization: Some("system:masters"),
            hosts: &[],
            uses: &[ExtendedKeyUsagePurpose::ClientAuth],
        };
        let existing = Kubeconfig::read(path).ok();
        let server = match (server, &existing) {
            (Some(server), _) => server.to_owned(),
            (None, Some(existing)) => existing.server.clone(),
            (None, None) => return Err(fail(path, "is missing or damaged: run `kontiki pki init`")),
        };
        let authority = Some(self.authority.certificate.clone());
        if let Some(Kubeconfig { server: s, certificate_authority, client: Some((certificate, key)), .. }) = &existing
            && (s, certificate_authority) == (&server, &authority)
            && self.authority.vouches_for(certificate, key, &leaf).is_ok()
        {
            return Ok(());
        }
        let Pair { certificate, key } = self.authority.issue(&leaf, LEAF_LIFETIME)?;
        let config =
            Kubeconfig { server, certificate_authority: authority, client: Some((certificate, key)), token: None };
        write(path, &config.to_yaml("kubernetes-admin"), 0o600)
    }
}

impl ReplicaPki {
    /// Reads the certificates of the replica `name` from `dir`; makes those that are missing, don't suit any more or
    /// expire soon.
    pub fn ensure(dir: &Path, cluster: &ClusterPki, name: &str, hosts: &[String]) -> Result<ReplicaPki, Error> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        create_private_dir(dir).map_err(|e| fail(dir, e))?;
        let serving = Leaf { name: "kube-apiserver", organization: None, hosts, uses: &[ServerAuth] };
        let peer = Leaf {
            name: &member_common_name(name),
            organization: Some(MEMBER_ORGANIZATION),
            hosts: &[MEMBER_DNS_NAME.to_owned()],
            uses: &[ServerAuth, ClientAuth],
        };
        Ok(ReplicaPki {
            serving: cluster.authority.ensure(dir, "apiserver", &serving)?,
            peer: cluster.peer_authority.ensure(dir, "peer", &peer)?,
        })
    }
}

impl Authority {
    fn create(dir: &Path, file: &str, name: &str) -> Result<(), Error> {
        let path = dir.join(format!("{file}.crt"));
        let key = KeyPair::generate().map_err(|e| fail(&path, e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_lifetime(&mut params, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key).map_err(|e| fail(&path, e))?;
        // The key first: a certificate says that the authority is complete.
        write(&dir.join(format!("{file}.key")), &key.serialize_pem(), 0o600)?;
        write(&path, &certificate.pem(), 0o644)
    }

    fn open(dir: &Path, file: &str) -> Result<Authority, Error> {
        let path = dir.join(format!("{file}.crt"));
        let certificate = read(&path)?;
        let key_path = dir.join(format!("{file}.key"));
        let issuer = match fs::read_to_string(&key_path) {
            Ok(key) => {
                let key = KeyPair::from_pem(&key).map_err(|e| fail(&key_path, e))?;
                // While files are replaced they may not fit for a moment.
                let der = first_der(&certificate).map_err(|e| fail(&path, e))?;
                let first = X509Certificate::from_der(&der).map_err(|e| fail(&path, e))?.1;
                if *first.public_key().subject_public_key.data != *key.public_key_raw() {
                    return Err(fail(&key_path, format!("is not the key of the first certificate in {file}.crt")));
                }
                Some(Issuer::from_ca_cert_pem(&certificate, key).map_err(|e| fail(&path, e))?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(fail(&key_path, e)),
        };
        Ok(Authority { path, certificate, issuer })
    }

    /// The pair of this name, made anew where that is needed.
    fn ensure(&self, dir: &Path, file: &str, leaf: &Leaf<'_>) -> Result<Pair, Error> {
        let (path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        let why = match (fs::read_to_string(&path), fs::read_to_string(&key_path)) {
            (Ok(certificate), Ok(key)) => match self.vouches_for(&certificate, &key, leaf) {
                Ok(()) => return Ok(Pair { certificate, key }),
                Err(why) => why,
            },
            _ => "does not exist".to_owned(),
        };
        if self.issuer.is_none() {
            return Err(fail(
                &path,
                format!("{why}, and the key of {} is not here to sign another", self.path.display()),
            ));
        }
        tracing::info!(path = %path.display(), reason = why, "issuing a certificate");
        let pair = self.issue(leaf, LEAF_LIFETIME)?;
        // A crash between the two leaves a pair that doesn't match, which is found and replaced.
        write(&key_path, &pair.key, 0o600)?;
        write(&path, &pair.certificate, 0o644)?;
        Ok(pair)
    }

    fn issue(&self, leaf: &Leaf<'_>, lifetime: Duration) -> Result<Pair, Error> {
        let wrong = |e: rcgen::Error| fail(&self.path, e);
        let Some(issuer) = &self.issuer else {
            return Err(fail(&self.path, "its key is not here to sign a certificate"));
        };
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::new(leaf.hosts).map_err(wrong)?;
        params.distinguished_name.remove(DnType::CommonName);
        if let Some(organization) = leaf.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, leaf.name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.uses.to_vec();
        set_lifetime(&mut params, lifetime);
        let certificate = params.signed_by(&key, issuer).map_err(wrong)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Whether a certificate is this authority's, says what it should, and will do for a while; why not, if not.
    fn vouches_for(&self, certificate: &str, key: &str, leaf: &Leaf<'_>) -> Result<(), String> {
        let theirs = first_der(certificate)?;
        let theirs = X509Certificate::from_der(&theirs).map_err(|e| e.to_string())?.1;
        let signer = key_id(&theirs, true);
        // What one that is on its way out has signed is replaced where that can be done.
        let signing = if self.issuer.is_some() { 1 } else { usize::MAX };
        let signed = Pem::iter_from_buffer(self.certificate.as_bytes()).take(signing).any(|own| {
            let Ok(own) = own else { return false };
            own.parse_x509().is_ok_and(|own| key_id(&own, false) == signer)
        });
        if !signed {
            return Err(format!("was not signed by {}", self.path.display()));
        }
        let name = theirs.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        if name != Some(leaf.name) {
            return Err(format!("is not for {}", leaf.name));
        }
        let key = KeyPair::from_pem(key).map_err(|e| e.to_string())?;
        if *theirs.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err("has another key than the one beside it".into());
        }
        let left = theirs.validity().not_after.timestamp() - unix_now();
        let least = if self.issuer.is_some() { RENEW_BEFORE } else { Duration::ZERO };
        if left < least.as_secs() as i64 {
            return Err(format!("expires in {} days", left / DAY.as_secs() as i64));
        }
        let names = theirs.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let covered = |host: &String| {
            let address = host.parse::<IpAddr>().ok();
            names.iter().any(|name| match (name, address) {
                (GeneralName::IPAddress(bytes), Some(IpAddr::V4(ip))) => **bytes == ip.octets(),
                (GeneralName::IPAddress(bytes), Some(IpAddr::V6(ip))) => **bytes == ip.octets(),
                (GeneralName::DNSName(name), None) => *name == host.as_str(),
                _ => false,
            })
        };
        match leaf.hosts.iter().find(|host| !covered(host)) {
            Some(host) => Err(format!("is not good for {host}")),
            None => Ok(()),
        }
    }
}

fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn first_der(pem: &str) -> Result<Vec<u8>, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| format!("is damaged: {e}"))?;
    Ok(pem.contents)
}

/// The identifier of the certificate's own key, or of the key that signed it.
fn key_id(certificate: &X509Certificate<'_>, signer: bool) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) if !signer => Some(id.0.to_vec()),
        ParsedExtension::AuthorityKeyIdentifier(id) if signer => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

/// What all replicas share, by file name, with the mode that a file has. A key may be missing where it is kept elsewhere.
const SHARED: [(&str, u32); 6] = [
    ("ca.key", 0o600),
    ("ca.crt", 0o644),
    ("peer-ca.key", 0o600),
    ("peer-ca.crt", 0o644),
    ("sa.pub", 0o644),
    ("sa.key", 0o600),
];

/// The files in `dir` that all replicas share, for one that joins.
pub fn pack(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    let there = SHARED.into_iter().filter(|(name, _)| dir.join(name).exists());
    there.map(|(name, _)| Ok((name.to_owned(), read(&dir.join(name))?))).collect()
}

/// Puts them in place; what else there may be is left out.
pub fn unpack(dir: &Path, files: &BTreeMap<String, String>) -> Result<(), Error> {
    create_private_dir(dir).map_err(|e| fail(dir, e))?;
    for (name, mode) in SHARED {
        if let Some(content) = files.get(name) {
            write(&dir.join(name), content, mode)?;
        }
    }
    Ok(())
}

pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| fail(path, e))
}

/// Puts a file in place in one step, so that nobody sees half of it, now or after a crash.
pub fn write(path: &Path, content: &str, mode: u32) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let put = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    put().map_err(|e: std::io::Error| fail(path, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replica_keeps_its_certificates_until_they_no_longer_suit() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterPki::create(&dir.path().join("pki")).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = dir.path().join("n1");
        let first = ReplicaPki::ensure(&own, &cluster, "n1", &hosts).unwrap();
        let again = ReplicaPki::ensure(&own, &cluster, "n1", &hosts).unwrap();
        assert_eq!(first.serving.certificate, again.serving.certificate);
        let more = [hosts.as_slice(), &["::1".to_owned()]].concat();
        let wider = ReplicaPki::ensure(&own, &cluster, "n1", &more).unwrap();
        assert_ne!(first.serving.certificate, wider.serving.certificate);
        assert_eq!(first.peer.certificate, wider.peer.certificate);

        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for key in ["pki/ca.key", "pki/peer-ca.key", "pki/sa.key", "n1/apiserver.key", "n1/peer.key"] {
            assert_eq!(mode(dir.path().join(key)), 0o600, "{key}");
        }

        // Without the authority's key, what is there is used and nothing else can be had.
        fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
        let cluster = ClusterPki::open(&dir.path().join("pki")).unwrap();
        ReplicaPki::ensure(&own, &cluster, "n1", &more).unwrap();
        assert!(ReplicaPki::ensure(&own, &cluster, "n1", &["other".to_owned()]).is_err());
    }

    #[test]
    fn what_ends_soon_is_renewed_where_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        ClusterPki::create(&pki).unwrap();
        // A replica that joins gets what the cluster shares, and needs nobody from then on.
        let joined = dir.path().join("n2");
        unpack(&joined, &pack(&pki).unwrap()).unwrap();
        let authority = Authority::open(&joined, "peer-ca").unwrap();
        let leaf = Leaf { name: "x", organization: None, hosts: &[], uses: &[ExtendedKeyUsagePurpose::ClientAuth] };
        let old = authority.issue(&leaf, RENEW_BEFORE - DAY).unwrap();
        let keep = |pair: &Pair| {
            write(&joined.join("x.key"), &pair.key, 0o600).unwrap();
            write(&joined.join("x.crt"), &pair.certificate, 0o644).unwrap();
        };
        keep(&old);
        let renewed = authority.ensure(&joined, "x", &leaf).unwrap();
        assert_ne!(renewed.certificate, old.certificate);
        assert_eq!(authority.ensure(&joined, "x", &leaf).unwrap().certificate, renewed.certificate);

        // Where the key is elsewhere, it is used as long as it is good, whichever authority of several has signed it.
        keep(&old);
        fs::remove_file(joined.join("peer-ca.key")).unwrap();
        let next = Authority::open(&pki, "ca").unwrap().certificate;
        write(&joined.join("peer-ca.crt"), &format!("{next}{}", authority.certificate), 0o644).unwrap();
        let several = Authority::open(&joined, "peer-ca").unwrap();
        assert_eq!(several.ensure(&joined, "x", &leaf).unwrap().certificate, old.certificate);
        keep(&authority.issue(&leaf, Duration::ZERO).unwrap());
        std::thread::sleep(Duration::from_millis(1100));
        assert!(several.ensure(&joined, "x", &leaf).is_err());
    }
}
