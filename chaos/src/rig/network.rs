//! The ways between replicas.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, bail};

use super::Place;
use super::proxy::Proxies;
use crate::cluster::free_ports;

pub enum Network {
    /// This machine's, for all.
    Shared,
    Namespaces(Namespaces),
    Proxied(Proxies),
}

impl Network {
    pub fn namespaces() -> anyhow::Result<Network> {
        Namespaces::new().map(Network::Namespaces)
    }

    pub fn proxied() -> Network {
        Network::Proxied(Proxies::default())
    }

    pub fn describe(&self) -> &'static str {
        match self {
            Network::Shared => "one network",
            Network::Namespaces(_) => "a network namespace for each replica",
            Network::Proxied(_) => "a proxy before each replica's peer port (not root: no network namespaces)",
        }
    }

    pub async fn attach(&mut self, index: usize) -> anyhow::Result<Place> {
        if let Network::Namespaces(namespaces) = self {
            return namespaces.attach(index);
        }
        let ports = free_ports(2)?;
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut place = Place {
            ip: Ipv4Addr::LOCALHOST.into(),
            secure_port: ports[0],
            peer: local(ports[1]),
            peer_listen: None,
            enter: Vec::new(),
            environment: Vec::new(),
            faults: None,
            volume: None,
        };
        if let Network::Proxied(proxies) = self {
            place.peer = proxies.add(index, local(ports[1])).await?;
            place.peer_listen = Some(local(ports[1]));
        }
        Ok(place)
    }

    pub fn started(&self, index: usize, pid: u32) {
        if let Network::Proxied(proxies) = self {
            proxies.started(index, pid);
        }
    }

    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        match self {
            Network::Shared => bail!("the replicas share one network"),
            Network::Namespaces(namespaces) => namespaces.direct(from, to, NOBODY),
            Network::Proxied(proxies) => {
                proxies.cut(from, to);
                Ok(())
            }
        }
    }

    pub fn heal(&self, from: usize, to: usize) -> anyhow::Result<()> {
        match self {
            Network::Shared => Ok(()),
            Network::Namespaces(namespaces) => namespaces.direct(from, to, &mac(to)),
            Network::Proxied(proxies) => {
                proxies.heal(from, to);
                Ok(())
            }
        }
    }
}

/// A link-layer address that no interface has: what is sent there is gone without a sound, as with a pulled cable.
const NOBODY: &str = "02:4b:00:00:ff:ff";
const SECURE_PORT: u16 = 6443;
const PEER_PORT: u16 = 7001;

fn mac(index: usize) -> String {
    format!("02:4b:00:00:00:{:02x}", index + 1)
}

/// A network namespace for each replica, all on one bridge to this machine's own. A way is cut in the sender's table of
/// neighbours, which needs no packet filter.
pub struct Namespaces {
    /// Of the bridge; those of namespaces and interfaces are made of it.
    name: String,
    third: u8,
    attached: usize,
}

impl Namespaces {
    fn new() -> anyhow::Result<Namespaces> {
        let name = format!("kc{}", std::process::id());
        // The range for benchmarks, which nobody routes.
        let third = (0..=255u8)
            .map(|step| step.wrapping_add(std::process::id() as u8))
            .find(|third| ip(&format!("-4 addr show to 198.18.{third}.0/24")).is_ok_and(|used| used.is_empty()))
            .context("198.18.0.0/16 is all taken, or there is no `ip` command")?;
        ip(&format!("link add {name} type bridge"))?;
        let made = Namespaces { name, third, attached: 0 };
        ip(&format!("addr add {}/24 dev {}", made.address(254), made.name))?;
        ip(&format!("link set {} up", made.name))?;
        Ok(made)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.third, host)
    }

    fn namespace(&self, index: usize) -> String {
        format!("{}n{}", self.name, index + 1)
    }

    fn attach(&mut self, index: usize) -> anyhow::Result<Place> {
        let host = u8::try_from(index + 1).ok().filter(|host| *host < 254).context("too many replicas")?;
        let (bridge, namespace) = (&self.name, self.namespace(index));
        let (outside, address, mac) = (format!("{bridge}v{host}"), self.address(host), mac(index));
        ip(&format!("netns add {namespace}"))?;
        self.attached = self.attached.max(index + 1);
        ip(&format!("link add {outside} type veth peer name eth0 address {mac} netns {namespace}"))?;
        ip(&format!("link set {outside} master {bridge} up"))?;
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(Place {
            ip: IpAddr::V4(address),
            secure_port: SECURE_PORT,
            peer: (address, PEER_PORT).into(),
            peer_listen: None,
            enter: vec!["nsenter".into(), format!("--net=/run/netns/{namespace}")],
            environment: Vec::new(),
            faults: None,
            volume: None,
        })
    }

    /// What one sends to another goes to this link-layer address.
    fn direct(&self, from: usize, to: usize, address: &str) -> anyhow::Result<()> {
        let (namespace, to) = (self.namespace(from), self.address(to as u8 + 1));
        ip(&format!("-n {namespace} neigh replace {to} lladdr {address} dev eth0 nud permanent")).map(drop)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Interfaces go with the namespace that they are in.
        for index in 0..self.attached {
            let _ = ip(&format!("netns del {}", self.namespace(index)));
        }
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(args: &str) -> anyhow::Result<String> {
    let output = Command::new("ip").args(args.split(' ')).output().context("ip")?;
    if !output.status.success() {
        bail!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
