//! Each replica's lease in kube-system, by which the leader and operators see that it serves, and where.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, Instant};

use super::DEADLINE;
use crate::config::hostname;
use crate::internal;
use crate::object::Fields;
use crate::server::Server;
use crate::status::Result;
use crate::time;

/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
pub const ADDRESS: &str = "kubernetes.io/peer-advertise-address";
pub const LABEL: &str = "apiserver.kubernetes.io/identity";

/// Who this replica is among the API servers of the cluster.
pub struct Identity {
    /// Of the lease.
    pub name: String,
    /// Of this run of the replica.
    holder: String,
    /// Where clients in the cluster reach it.
    pub address: SocketAddr,
}

impl Identity {
    pub fn new(replica: &str, address: SocketAddr) -> Identity {
        let name = format!("apiserver-{}", base32(&Sha256::digest(replica)[..16]));
        let holder = format!("{name}_{}", uuid::Uuid::new_v4());
        Identity { name, holder, address }
    }

    fn lease(&self) -> Value {
        json!({
            "kind": "Lease",
            "apiVersion": "coordination.k8s.io/v1",
            "metadata": {
                "name": self.name,
                "namespace": "kube-system",
                "labels": {LABEL: "kube-apiserver", "kubernetes.io/hostname": hostname()},
                "annotations": {ADDRESS: self.address.to_string()},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": 3600,
                "renewTime": time::now_micro(),
            },
        })
    }

    async fn renew(&self, server: &Server) -> Result<()> {
        let (registry, view) = (server.registry(), server.replica.store().view());
        let lease = self.lease();
        let transaction = match internal::find(&registry, &view, &lease)? {
            None => internal::create(&registry, lease, internal::MANAGER)?,
            Some(record) => internal::update(&registry, record, |object| {
                for path in [["metadata", "labels"], ["metadata", "annotations"]] {
                    object.set(&path, lease.at(&path).cloned().unwrap_or_default());
                }
                object.set(&["spec"], lease["spec"].clone());
            })?,
        };
        // After a conflict the next round finds what is there.
        server.replica.propose(transaction, Instant::now() + DEADLINE).await?;
        Ok(())
    }

    /// Tells the leader that this replica serves no more.
    pub async fn resign(&self, server: &Server) {
        let view = server.replica.store().view();
        let found = internal::find(&server.registry(), &view, &self.lease());
        if let Ok(Some(record)) = found
            && let Err(error) = server.replica.propose(internal::delete(record), Instant::now() + DEADLINE / 5).await
        {
            tracing::info!(%error, "this replica's lease is left to expire");
        }
    }
}

pub async fn keep(server: Arc<Server>, identity: Arc<Identity>) {
    loop {
        // That there is no quorum has been said.
        if let Err(error) = identity.renew(&server).await
            && server.replica.has_quorum()
        {
            tracing::warn!(%error, "renewing this replica's lease");
        }
        tokio::time::sleep(RENEWAL).await;
    }
}

/// RFC 4648, in lower case and without padding, as upstream writes the hash of a host name.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = |index: usize| {
        (index * 5..index * 5 + 5).fold(0, |value, bit| {
            value << 1 | bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1))
        })
    };
    (0..(bytes.len() * 8).div_ceil(5)).map(|index| char::from(ALPHABET[bits(index)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_the_rfcs() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foob", "mzxw6yq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }
}
