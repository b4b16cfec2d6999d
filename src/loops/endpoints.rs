//! The `kubernetes` service and its endpoints, which are the replicas that serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use kontiki_storage::{Revision, Transaction, View};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::DEADLINE;
use super::identity::{ADDRESS, Identity, LABEL};
use crate::discovery::Registry;
use crate::internal;
use crate::kinds::service_alloc::address_object;
use crate::object::Fields;
use crate::server::Server;
use crate::status::Result;
use crate::verbs::decode_stored;

const LEASES: &str = "leases.coordination.k8s.io/kube-system/apiserver-";
const SLICES: &str = "endpointslices.discovery.k8s.io/default/kubernetes";
/// A replica serves no more when its lease was not renewed for this long. That is measured from when the leader saw the
/// last renewal, since the clocks of machines differ.
const ALIVE: Duration = Duration::from_secs(15);
/// After this the lease itself is removed.
const FORGOTTEN: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct Reconciler {
    /// By key: the newest renewal that was seen, and when.
    leases: HashMap<String, (Revision, Instant)>,
}

impl Reconciler {
    pub async fn reconcile(&mut self, server: &Server, identity: &Identity) -> Result<()> {
        let (registry, view) = (server.registry(), server.replica.store().view());
        let mut transactions = Vec::new();
        let live = self.live(&view, &mut transactions)?;
        if !live.is_empty() {
            service(server, &registry, &view, identity.address.port(), &mut transactions)?;
            endpoints(&registry, &view, &live, &mut transactions)?;
            slices(&registry, &view, &live, &mut transactions)?;
        }
        for transaction in transactions {
            // After a conflict the next round finds what is there.
            server.replica.propose(transaction, Instant::now() + DEADLINE).await?;
        }
        Ok(())
    }

    /// Where the replicas serve that do.
    fn live(&mut self, view: &View, transactions: &mut Vec<Transaction>) -> Result<BTreeSet<SocketAddr>> {
        let now = Instant::now();
        let mut live = BTreeSet::new();
        let mut seen = HashMap::new();
        for record in view.prefix(LEASES) {
            let key = record.key.as_str();
            let at = match self.leases.get(key) {
                Some((revision, at)) if *revision == record.modified => *at,
                _ => now,
            };
            seen.insert(key.to_owned(), (record.modified, at));
            let lease = decode_stored(record)?;
            if lease.text_at(&["metadata", "labels", LABEL]) != "kube-apiserver" {
                continue;
            }
            if now - at < ALIVE {
                live.extend(lease.text_at(&["metadata", "annotations", ADDRESS]).parse::<SocketAddr>());
            } else if now - at > FORGOTTEN {
                transactions.push(internal::delete(record));
            }
        }
        self.leases = seen;
        Ok(live)
    }
}

/// The service, with the address that it claims.
fn service(server: &Server, registry: &Registry, view: &View, port: u16, to: &mut Vec<Transaction>) -> Result<()> {
    let Some(address) = server.settings.service_ranges.first().and_then(|range| range.hosts().next()) else {
        return Ok(());
    };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let service = json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    });
    if internal::find(registry, view, &service)?.is_some() {
        return Ok(());
    }
    let mut made = internal::create(registry, service, internal::MANAGER)?;
    let claim = address_object(address, "default", "kubernetes");
    if internal::find(registry, view, &claim)?.is_some() {
        tracing::warn!(%address, "the address of the kubernetes service is taken by another");
        return Ok(());
    }
    let claim = internal::create(registry, claim, internal::MANAGER)?;
    made.conditions.extend(claim.conditions);
    made.writes.extend(claim.writes);
    to.push(made);
    Ok(())
}

/// The replicas that serve on the same port; as a rule that is all of them.
fn by_port(live: &BTreeSet<SocketAddr>) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut groups: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in live {
        groups.entry(address.port()).or_default().push(address.ip());
    }
    groups
}

fn ports(port: u16) -> Value {
    json!([{"name": "https", "port": port, "protocol": "TCP"}])
}

fn endpoints(registry: &Registry, view: &View, live: &BTreeSet<SocketAddr>, to: &mut Vec<Transaction>) -> Result<()> {
    let subset = |(port, addresses): (u16, Vec<IpAddr>)| {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        json!({"addresses": addresses, "ports": ports(port)})
    };
    let wanted = json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": by_port(live).into_iter().map(subset).collect::<Vec<_>>(),
    });
    settle(registry, view, wanted, &["subsets"], to)
}

/// A slice has one port and one family; the first bears the service's name.
fn slices(registry: &Registry, view: &View, live: &BTreeSet<SocketAddr>, to: &mut Vec<Transaction>) -> Result<()> {
    let mut groups: BTreeMap<(bool, u16), Vec<IpAddr>> = BTreeMap::new();
    for address in live {
        groups.entry((address.is_ipv6(), address.port())).or_default().push(address.ip());
    }
    let mut names = BTreeSet::new();
    for (index, ((ipv6, port), addresses)) in groups.into_iter().enumerate() {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let name = match index {
            0 => "kubernetes".to_owned(),
            _ => format!("kubernetes-{}-{port}", family.to_ascii_lowercase()),
        };
        let endpoint = |ip: &IpAddr| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}});
        let wanted = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": ports(port),
        });
        names.insert(name);
        settle(registry, view, wanted, &["addressType", "endpoints", "ports"], to)?;
    }
    for record in view.prefix(SLICES) {
        let slice = decode_stored(record)?;
        // Only those that this loop has made.
        if slice.text_at(&["metadata", "labels", "kubernetes.io/service-name"]) == "kubernetes"
            && slice.at(&["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]).is_none()
            && !names.contains(slice.text_at(&["metadata", "name"]))
        {
            to.push(internal::delete(record));
        }
    }
    Ok(())
}

/// Makes the object, or brings these fields of it into the wanted form.
fn settle(registry: &Registry, view: &View, wanted: Value, fields: &[&str], to: &mut Vec<Transaction>) -> Result<()> {
    let Some(record) = internal::find(registry, view, &wanted)? else {
        to.push(internal::create(registry, wanted, internal::MANAGER)?);
        return Ok(());
    };
    let there = decode_stored(record)?;
    if fields.iter().any(|field| there.get(*field) != wanted.get(*field)) {
        to.push(internal::update(registry, record, |object| {
            for field in fields {
                object.set(&[*field], wanted[*field].clone());
            }
        })?);
    }
    Ok(())
}
