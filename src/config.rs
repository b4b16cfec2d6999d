//! The flags of `kontiki serve`, checked and in the types that the rest works with.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::cli::ServeFlags;
use crate::cli::{AuthorizationMode, TlsVersion};
use crate::join::Token;
use crate::serve::tls;
use crate::server::Settings;

#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub storage_memory_budget: usize,
    pub cluster: Cluster,
    pub join: Option<Join>,
    pub pki_dir: Option<PathBuf>,
    pub lease_reads: bool,
    pub listen: SocketAddr,
    /// What other machines reach this replica's API at.
    pub advertise: IpAddr,
    pub external_hostname: Option<String>,
    /// Certificate and key.
    pub serving_files: Option<(PathBuf, PathBuf)>,
    pub tls_min_version: TlsVersion,
    /// Names of those of TLS 1.2 to speak; empty: all.
    pub tls_cipher_suites: Vec<String>,
    pub http2_streams: u32,
    /// Zero: no limit.
    pub max_reading: usize,
    pub max_writing: usize,
    pub shutdown_delay: Duration,
    pub authentication: Authentication,
    pub authorization: Vec<AuthorizationMode>,
    pub settings: Settings,
}

/// The replicas, as a new cluster is told of them.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// This replica's.
    pub peer_address: Option<String>,
    /// Where it listens for the others, if not there.
    pub peer_bind: Option<SocketAddr>,
    /// Name to peer address; empty for a cluster of one.
    pub members: BTreeMap<String, String>,
}

/// The cluster to become a member of.
#[derive(Debug, Clone)]
pub struct Join {
    /// Of a replica's API.
    pub url: String,
    pub token: Token,
    pub learner: bool,
}

#[derive(Debug, Clone)]
pub struct Authentication {
    pub anonymous: bool,
    pub client_ca_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub bootstrap_tokens: bool,
    pub service_accounts: ServiceAccounts,
}

#[derive(Debug, Clone)]
pub struct ServiceAccounts {
    /// The first is put into new tokens.
    pub issuers: Vec<String>,
    pub audiences: Vec<String>,
    pub key_files: Vec<PathBuf>,
    pub signing_key_file: Option<PathBuf>,
    pub max_expiration: Option<Duration>,
}

/// A flag that can't be so, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: {problem}; {fix}")]
pub struct ConfigError {
    pub flag: &'static str,
    pub problem: String,
    pub fix: String,
}

fn error(flag: &'static str, problem: impl Into<String>, fix: impl Into<String>) -> ConfigError {
    ConfigError { flag, problem: problem.into(), fix: fix.into() }
}

impl Config {
    pub fn from_flags(flags: ServeFlags) -> Result<Config, ConfigError> {
        if flags.secure_port == 0 {
            return Err(error("--secure-port", "the port can't be 0", "choose one between 1 and 65535"));
        }
        if !is_name(&flags.name) {
            let fix = "use at most 63 lower case letters, digits and dashes, as in n1";
            return Err(error("--name", format!("{:?} is not a DNS label", flags.name), fix));
        }
        let cluster = cluster(&flags)?;
        let join = join(&flags)?;
        if !cluster.members.is_empty() && flags.pki_dir.is_none() {
            let fix = "run `kontiki pki init --pki-dir DIR` once and give every replica that directory";
            return Err(error("--pki-dir", "replicas of one cluster share their authorities", fix));
        }
        let advertise = advertise(&flags)?;
        check_ranges(&flags.service_cluster_ip_range)?;
        if let Some(issuer) = flags.service_account_issuer.iter().find(|issuer| issuer.is_empty()) {
            return Err(error(
                "--service-account-issuer",
                format!("{issuer:?} names nobody"),
                "give a URL, or remove it",
            ));
        }
        let audiences = match flags.api_audiences.as_slice() {
            [] => flags.service_account_issuer.clone(),
            some => some.to_vec(),
        };
        Ok(Config {
            settings: Settings {
                service_ranges: flags.service_cluster_ip_range,
                node_ports: flags.service_node_port_range,
                event_ttl: flags.event_ttl,
                min_request_timeout: Duration::from_secs(flags.min_request_timeout),
                request_timeout: flags.request_timeout,
                ..Settings::default()
            },
            name: flags.name,
            data_dir: flags.data_dir,
            storage_memory_budget: flags.storage_memory_budget,
            cluster,
            join,
            pki_dir: flags.pki_dir,
            lease_reads: flags.leader_lease_reads,
            listen: SocketAddr::new(flags.bind_address, flags.secure_port),
            advertise,
            external_hostname: flags.external_hostname,
            serving_files: flags.tls_cert_file.zip(flags.tls_private_key_file),
            tls_min_version: flags.tls_min_version,
            tls_cipher_suites: tls::cipher_suites(flags.tls_cipher_suites)?,
            http2_streams: flags.http2_max_streams_per_connection,
            max_reading: flags.max_requests_inflight,
            max_writing: flags.max_mutating_requests_inflight,
            shutdown_delay: flags.shutdown_delay_duration,
            authentication: Authentication {
                anonymous: flags.anonymous_auth,
                client_ca_file: flags.client_ca_file,
                token_file: flags.token_auth_file,
                bootstrap_tokens: flags.enable_bootstrap_token_auth,
                service_accounts: ServiceAccounts {
                    issuers: flags.service_account_issuer,
                    audiences,
                    key_files: flags.service_account_key_file,
                    signing_key_file: flags.service_account_signing_key_file,
                    max_expiration: Some(flags.service_account_max_token_expiration).filter(|max| !max.is_zero()),
                },
            },
            authorization: flags.authorization_mode,
        })
    }

    /// What a client on this machine reaches the API at.
    pub fn local_url(&self) -> String {
        let host = match self.listen.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("https://{}", SocketAddr::new(host, self.listen.port()))
    }

    /// The first address of the first service range: the `kubernetes` service's.
    pub fn service_address(&self) -> Option<IpAddr> {
        self.settings.service_ranges.first().and_then(|range| range.hosts().next())
    }

    /// The names and addresses that the serving certificate is to be good for.
    pub fn serving_hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .to_vec();
        hosts.extend(hostname());
        hosts.extend(self.external_hostname.clone());
        let mut addresses = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
        let bind = Some(self.listen.ip()).filter(|ip| !ip.is_unspecified());
        addresses
            .extend([bind, Some(self.advertise), self.service_address()].into_iter().flatten().map(|a| a.to_string()));
        hosts.extend(addresses);
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        hosts
    }
}

fn cluster(flags: &ServeFlags) -> Result<Cluster, ConfigError> {
    const FLAG: &str = "--initial-cluster";
    let mut members = BTreeMap::new();
    for member in &flags.initial_cluster {
        let Some((name, address)) = member.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(error(FLAG, format!("{member:?} is no member"), "write each as name=host:port"));
        };
        check_address(FLAG, address)?;
        if members.values().any(|other| other == address) {
            return Err(error(FLAG, format!("{address} stands there twice"), "give each replica its own address"));
        }
        if members.insert(name.to_owned(), address.to_owned()).is_some() {
            return Err(error(FLAG, format!("{name} stands there twice"), "give each replica its own name"));
        }
    }
    if let Some(address) = &flags.peer_address {
        check_address("--peer-address", address)?;
    }
    let peer_bind = flags.peer_bind_address;
    if members.is_empty() {
        return Ok(Cluster { peer_address: flags.peer_address.clone(), peer_bind, members });
    }
    let Some(own) = members.get(&flags.name) else {
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        let problem = format!("{} is not among the replicas of --initial-cluster ({})", flags.name, names.join(", "));
        return Err(error("--name", problem, "use one of these names, or add this one to the list"));
    };
    match &flags.peer_address {
        Some(address) if address != own => {
            let problem = format!("{address} is not what --initial-cluster gives {} ({own})", flags.name);
            Err(error("--peer-address", problem, "make the two the same"))
        }
        _ => Ok(Cluster { peer_address: Some(own.clone()), peer_bind, members }),
    }
}

fn join(flags: &ServeFlags) -> Result<Option<Join>, ConfigError> {
    const FLAG: &str = "--join";
    let Some((url, token)) = flags.join.clone().zip(flags.token.clone()) else { return Ok(None) };
    if !is_server(&url) {
        return Err(error(FLAG, format!("{url:?} is no server"), "write it as https://host:port"));
    }
    if flags.peer_address.is_none() {
        return Err(error("--peer-address", "the other replicas must reach this one", "give host:port, with --join"));
    }
    Ok(Some(Join { url, token, learner: flags.learner }))
}

/// Whether this says where an API is served.
pub fn is_server(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok();
    uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()))
}

/// Whether a replica may be called so.
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether this says where a replica is reached.
pub fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    matches!(port, Some(Ok(1..)))
}

fn check_address(flag: &'static str, address: &str) -> Result<(), ConfigError> {
    if is_address(address) {
        return Ok(());
    }
    Err(error(flag, format!("{address:?} is no address"), "write it as host:port"))
}

fn advertise(flags: &ServeFlags) -> Result<IpAddr, ConfigError> {
    match flags.advertise_address {
        Some(address) if address.is_unspecified() => {
            let problem = format!("{address} is not an address that anybody can reach");
            Err(error("--advertise-address", problem, "give one of this machine's, or remove it"))
        }
        Some(address) => Ok(address),
        None if flags.bind_address.is_unspecified() => Ok(default_address()),
        None => Ok(flags.bind_address),
    }
}

/// The address that packets to the outside leave from; the loopback address on a machine without such.
fn default_address() -> IpAddr {
    // Connecting a UDP socket sends nothing; the address is one that is never assigned.
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn check_ranges(ranges: &[IpNet]) -> Result<(), ConfigError> {
    const FLAG: &str = "--service-cluster-ip-range";
    match ranges {
        [] => Err(error(FLAG, "there is no range", "give one, as in 10.0.0.0/24")),
        [a, b] if a.addr().is_ipv4() == b.addr().is_ipv4() => {
            Err(error(FLAG, format!("{a} and {b} are of one family"), "give one range of each family, or only one"))
        }
        [_, _, _, ..] => Err(error(FLAG, "there are more than two ranges", "give one, or one of each family")),
        ranges => match ranges.iter().find(|range| range.max_prefix_len() - range.prefix_len() < 3) {
            Some(range) => Err(error(FLAG, format!("{range} has less than 8 addresses"), "give a larger range")),
            None => Ok(()),
        },
    }
}

pub fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        let command = ServeFlags::augment_args(clap::Command::new("serve"));
        let words = std::iter::once("serve").chain(line.split_whitespace());
        let flags = command.try_get_matches_from(words).and_then(|matches| ServeFlags::from_arg_matches(&matches));
        flags.map_err(|e| e.to_string()).and_then(|flags| Config::from_flags(flags).map_err(|e| e.to_string()))
    }

    #[test]
    fn errors_name_the_flag_and_the_fix() {
        let three = "--initial-cluster n1=127.0.0.1:7001,n2=127.0.0.1:7002,n3=127.0.0.1:7003 --pki-dir k";
        for (line, flag, fix) in [
            ("--secure-port 0", "--secure-port", "choose"),
            ("--name N1", "--name", "lower case"),
            ("--initial-cluster n1=127.0.0.1:7001 --name n1", "--pki-dir", "kontiki pki init"),
            (&format!("{three} --name n4"), "--name", "add this one"),
            (&format!("{three} --name n1 --peer-address 127.0.0.1:7009"), "--peer-address", "the same"),
            ("--initial-cluster n1 --name n1", "--initial-cluster", "name=host:port"),
            ("--service-cluster-ip-range 10.0.0.0/30", "--service-cluster-ip-range", "larger"),
            ("--storage-memory-budget 1Mi", "--storage-memory-budget", "48Mi"),
            ("--event-ttl 1", "--event-ttl", "1h30m"),
            ("--service-node-port-range 5-1", "--service-node-port-range", "30000-32767"),
            ("--tls-cert-file x", "--tls-private-key-file", "provided"),
        ] {
            let message = config(&format!("--data-dir d {line}")).unwrap_err();
            assert!(message.contains(flag) && message.contains(fix), "{line}: {message}");
        }
        let config = config(&format!("--data-dir d {three} --name n2")).unwrap();
        assert_eq!(config.cluster.peer_address.as_deref(), Some("127.0.0.1:7002"));
    }

    #[test]
    fn switches_read_as_in_go() {
        assert!(config("--data-dir d --anonymous-auth").unwrap().authentication.anonymous);
        assert!(!config("--data-dir d --anonymous-auth=false").unwrap().authentication.anonymous);
    }
}
