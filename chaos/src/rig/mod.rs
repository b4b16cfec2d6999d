//! What stands between a replica and its machine, so that a drill can take it away: network, disk, clock.

mod network;
mod proxy;
mod shim;
mod volume;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use self::network::Network;
pub use self::shim::Faults;
use self::shim::Shim;
pub use self::volume::Volume;

/// A cluster that needs none of it runs its replicas as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The way from one replica to another can be cut.
    Network,
    /// Every replica has a small disk of its own.
    SmallDisk,
    /// Clock and syncs of a replica can be tampered with.
    Shim,
}

impl Need {
    /// Why it can't be had here.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Need::Network => None,
            Need::SmallDisk => (!is_root()).then_some("a small disk for each replica is mounted, which only root may"),
            Need::Shim => {
                (!shim::can_build()).then_some("the shim that is preloaded into replicas needs a C compiler (cc)")
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub struct Rig {
    network: Network,
    shim: Option<Shim>,
    small_disks: bool,
}

/// What one replica is started with.
pub struct Place {
    pub ip: IpAddr,
    pub secure_port: u16,
    /// Where the other replicas look for this one.
    pub peer: SocketAddr,
    /// Where it listens for them, if not there.
    pub peer_listen: Option<SocketAddr>,
    /// The command that starts the process in its network.
    pub enter: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub faults: Option<Faults>,
    pub volume: Option<Volume>,
}

impl Rig {
    pub fn new(needs: &BTreeSet<Need>, dir: &Path) -> anyhow::Result<Rig> {
        let network = match needs.contains(&Need::Network) {
            false => Network::Shared,
            true if is_root() => Network::namespaces().context("network namespaces for the replicas")?,
            true => Network::proxied(),
        };
        let shim = needs.contains(&Need::Shim).then(|| Shim::build(dir)).transpose()?;
        Ok(Rig { network, shim, small_disks: needs.contains(&Need::SmallDisk) })
    }

    /// How the network is made, for people.
    pub fn describe(&self) -> &'static str {
        self.network.describe()
    }

    /// Makes a place for the replica with this index, whose data will be in `data_dir`.
    pub async fn place(&mut self, index: usize, name: &str, data_dir: &Path) -> anyhow::Result<Place> {
        std::fs::create_dir_all(data_dir)?;
        let mut place = self.network.attach(index).await?;
        if let Some(shim) = &self.shim {
            let faults = shim.faults(name)?;
            place.environment = shim.environment(&faults);
            place.faults = Some(faults);
        }
        if self.small_disks {
            place.volume = Some(Volume::mount(data_dir)?);
        }
        Ok(place)
    }

    /// The replica runs as this process now.
    pub fn started(&self, index: usize, pid: u32) {
        self.network.started(index, pid);
    }

    /// Nothing gets from one to the other any more, and nobody is told.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        self.network.cut(from, to)
    }

    pub fn heal(&self, from: usize, to: usize) -> anyhow::Result<()> {
        self.network.heal(from, to)
    }
}

/// Shared with tasks.
pub type Pids = Arc<parking_lot::Mutex<Vec<Option<u32>>>>;
