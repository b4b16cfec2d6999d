//! What a write of a service claims and releases, in the service's own transaction: an address is claimed by the
//! IPAddress object that bears its name, a node port by a key in a table of the server's own.

use std::net::IpAddr;
use std::ops::Bound;
use std::ops::RangeInclusive;

use bytes::Bytes;
use ipnet::IpNet;
use kontiki_storage::{Condition, Key, View, Write};
use serde_json::Value;

use super::Request;
use super::commit::Plan;
use super::create::new_uid;
use crate::codec::encode_for_store;
use crate::kinds::service_alloc::{self, Claims};
use crate::metrics::METRICS;
use crate::object::Fields;
use crate::server::Settings;
use crate::status::Result;
use crate::time;

const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
/// No resource is kept under such a name, so nobody sees it.
const PORTS: &str = "_nodeports";

fn address_key(address: IpAddr) -> Key {
    format!("{ADDRESSES}/{address}").into()
}

fn port_key(port: u16) -> Key {
    format!("{PORTS}/{port}").into()
}

struct Taken<'v> {
    view: &'v View,
    settings: &'v Settings,
    dry_run: bool,
}

impl Claims for Taken<'_> {
    fn ranges(&self) -> &[IpNet] {
        &self.settings.service_ranges
    }

    fn node_port_range(&self) -> RangeInclusive<u16> {
        self.settings.node_ports.clone()
    }

    fn address_taken(&self, address: IpAddr) -> bool {
        self.view.get(address_key(address).as_str()).is_some()
    }

    fn node_port_taken(&self, port: u16) -> bool {
        self.view.get(port_key(port).as_str()).is_some()
    }

    fn dry_run(&self) -> bool {
        self.dry_run
    }
}

/// Addresses that are claimed.
pub fn allocated_addresses(view: &View) -> impl Iterator<Item = IpAddr> {
    let keys = view.range(&format!("{ADDRESSES}/"), Bound::Unbounded).map(|record| record.key.as_str());
    keys.filter_map(|key| key.rsplit_once('/')?.1.parse().ok())
}

/// How many node ports are claimed.
pub fn allocated_ports(view: &View) -> usize {
    view.range(&format!("{PORTS}/"), Bound::Unbounded).count()
}

/// What the client wants its service to have, before it is given the rest.
struct Chosen {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Chosen {
    fn by(service: &Value) -> Chosen {
        let addresses = service.list_at(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
        let first = service.text_at(&["spec", "clusterIP"]);
        let ports = service.list_at(&["spec", "ports"]).iter().filter_map(|port| port.int_at(&["nodePort"]));
        let check = service.int_at(&["spec", "healthCheckNodePort"]);
        Chosen {
            addresses: addresses.chain([first]).filter_map(|ip| ip.parse().ok()).collect(),
            ports: ports.chain(check).filter_map(|port| u16::try_from(port).ok()).collect(),
        }
    }

    fn count(&self, plan: &service_alloc::Plan, settings: &Settings) {
        for address in &plan.claim_addresses {
            METRICS.address_allocated(*address, &settings.service_ranges, self.addresses.contains(address));
        }
        for port in &plan.claim_ports {
            METRICS.port_allocated(self.ports.contains(port));
        }
    }
}

/// What a write does beside its object. Nothing, where that is no service.
#[derive(Default)]
pub struct Effects {
    plan: service_alloc::Plan,
    /// Endpoints go with their service.
    endpoints: Option<Key>,
}

fn is_service(request: &Request) -> bool {
    &*request.resource.table == "services"
}

pub fn create(request: &Request, view: &View, service: &mut Value, dry_run: bool) -> Result<Effects> {
    if !is_service(request) {
        return Ok(Effects::default());
    }
    let settings = &request.server.settings;
    let (claims, chosen) = (Taken { view, settings, dry_run }, Chosen::by(service));
    let plan = service_alloc::create(service, &claims, &mut rand::rng())?;
    if !dry_run {
        chosen.count(&plan, settings);
    }
    Ok(Effects { plan, endpoints: None })
}

pub fn update(request: &Request, view: &View, service: &mut Value, old: &Value, dry_run: bool) -> Result<Effects> {
    if !is_service(request) {
        return Ok(Effects::default());
    }
    let settings = &request.server.settings;
    let (claims, chosen) = (Taken { view, settings, dry_run }, Chosen::by(service));
    let plan = service_alloc::update(service, old, &claims, &mut rand::rng())?;
    if !dry_run {
        chosen.count(&plan, settings);
    }
    Ok(Effects { plan, endpoints: None })
}

pub fn delete(request: &Request, service: &Value) -> Effects {
    if !is_service(request) {
        return Effects::default();
    }
    let (namespace, name) = (service.text_at(&["metadata", "namespace"]), service.text_at(&["metadata", "name"]));
    let endpoints = Key::from(format!("endpoints/{namespace}/{name}"));
    Effects { plan: service_alloc::delete(service), endpoints: Some(endpoints) }
}

impl Effects {
    /// Puts them into the transaction that writes the service.
    pub fn enter(mut self, plan: &mut Plan, service: &Value) {
        // A port that changes its use only stays claimed.
        let (claimed, released) = (&mut self.plan.claim_ports, &mut self.plan.release_ports);
        let both: Vec<u16> = claimed.iter().copied().filter(|port| released.contains(port)).collect();
        claimed.retain(|port| !both.contains(port));
        released.retain(|port| !both.contains(port));
        let (namespace, name) = (service.text_at(&["metadata", "namespace"]), service.text_at(&["metadata", "name"]));
        for address in self.plan.claim_addresses {
            let key = address_key(address);
            let mut object = service_alloc::address_object(address, namespace, name);
            object.set(&["metadata", "uid"], new_uid());
            object.set(&["metadata", "creationTimestamp"], time::now());
            let (value, revision_at) = encode_for_store(&object);
            plan.transaction.conditions.push(Condition::Absent(key.clone()));
            plan.put(key, value.into(), revision_at, None);
        }
        for port in self.plan.claim_ports {
            let (key, value) = (port_key(port), Bytes::from(format!("{namespace}/{name}")));
            plan.transaction.conditions.push(Condition::Absent(key.clone()));
            plan.transaction.writes.push(Write::Put { key, value, revision_at: None, expires_at: None });
        }
        let released = self.plan.release_addresses.into_iter().map(address_key);
        let released = released.chain(self.plan.release_ports.into_iter().map(port_key));
        for key in released.chain(self.endpoints) {
            plan.delete(key);
        }
    }
}
