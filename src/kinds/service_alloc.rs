//! Cluster addresses, node ports and health check ports of services: who gets which.
//!
//! Everything here decides and nothing here writes. A [`Plan`] says what has to be claimed and released; the caller
//! puts that into the same transaction as the service, on the condition that what is claimed is still free, and asks
//! again when it is not. So a crash can't leak a claim, and a dry run is a plan that is thrown away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use rand::{Rng, RngCore};
use serde_json::{Value, json};

use super::names;
use super::service::{
    check_cluster_ips, has_node_ports, headless, kind_of, needs_cluster_ip, needs_health_check, node_ports, shown_list,
};
use crate::field::{Errors, Path};
use crate::object::Fields;
use crate::status::{ApiError, Result};

/// What services may be given, and what of it is taken.
pub trait Claims {
    /// The ranges of cluster addresses; the first is of the default family.
    fn ranges(&self) -> &[IpNet];
    fn node_port_range(&self) -> RangeInclusive<u16>;
    fn address_taken(&self, address: IpAddr) -> bool;
    fn node_port_taken(&self, port: u16) -> bool;

    /// A dry run shows ports that nobody can have, rather than ones that somebody else gets in the meantime.
    fn dry_run(&self) -> bool {
        false
    }
}

/// What to write beside the service.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    pub claim_addresses: Vec<IpAddr>,
    pub release_addresses: Vec<IpAddr>,
    pub claim_ports: Vec<u16>,
    pub release_ports: Vec<u16>,
}

/// The spec and labels of the IPAddress object that claims an address for a service.
pub fn address_object(address: IpAddr, namespace: &str, service: &str) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": namespace, "name": service } },
    })
}

/// For a new service: fills in families, addresses and ports. Runs before the service is validated.
pub fn create(service: &mut Value, claims: &dyn Claims, rng: &mut dyn RngCore) -> Result<Plan> {
    pair_cluster_ips(service, None);
    let mut allocator = Allocator { claims, rng, plan: Plan::default() };
    allocator.settle_families(service, None)?;
    allocator.claim_cluster_ips(service)?;
    if has_node_ports(service) {
        allocator.claim_node_ports(service)?;
    }
    if needs_health_check(service) {
        allocator.claim_health_check(service)?;
    }
    Ok(allocator.plan)
}

/// For a changed service: keeps what the client left out, claims what is new, releases what is gone.
pub fn update(service: &mut Value, old: &Value, claims: &dyn Claims, rng: &mut dyn RngCore) -> Result<Plan> {
    keep_allocated(service, old);
    pair_cluster_ips(service, Some(old));
    let mut allocator = Allocator { claims, rng, plan: Plan::default() };
    allocator.settle_families(service, Some(old))?;
    allocator.change_cluster_ips(service, old)?;
    allocator.change_node_ports(service, old)?;
    match (needs_health_check(old), needs_health_check(service)) {
        (false, true) => allocator.claim_health_check(service)?,
        (true, false) => allocator.plan.release_ports.extend(health_check_port(old)),
        _ => {}
    }
    Ok(allocator.plan)
}

/// For a service that goes away.
pub fn delete(service: &Value) -> Plan {
    let mut plan = Plan { release_addresses: addresses(service), ..Plan::default() };
    for port in node_ports(service).into_iter().filter_map(|port| u16::try_from(port).ok()) {
        if !plan.release_ports.contains(&port) {
            plan.release_ports.push(port);
        }
    }
    if needs_health_check(service) {
        plan.release_ports.extend(health_check_port(service));
    }
    plan
}

/// The claims that a stored service holds.
fn addresses(service: &Value) -> Vec<IpAddr> {
    if kind_of(service) == "ExternalName" {
        return Vec::new();
    }
    let ips = service.list_at(&["spec", "clusterIPs"]);
    ips.iter().filter_map(Value::as_str).filter_map(|ip| ip.parse().ok()).collect()
}

fn health_check_port(service: &Value) -> Option<u16> {
    let port = service.int_at(&["spec", "healthCheckNodePort"])?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// A client need not send what was allocated for it.
fn keep_allocated(service: &mut Value, old: &Value) {
    let single = ["spec", "clusterIP"];
    let plural = ["spec", "clusterIPs"];
    if needs_cluster_ip(old) && needs_cluster_ip(service) {
        if service.text_at(&single).is_empty()
            && let Some(ip) = old.at(&single)
        {
            service.set(&single, ip.clone());
        }
        if service.list_at(&plural).is_empty()
            && service.at(&single) == old.at(&single)
            && let Some(ips) = old.at(&plural)
        {
            service.set(&plural, ips.clone());
        }
    }
    if has_node_ports(old) && has_node_ports(service) {
        let kept = node_ports(service);
        for port in service.items_mut(&["spec", "ports"]) {
            if port.int_at(&["nodePort"]).unwrap_or_default() != 0 {
                continue;
            }
            let name = port.text_at(&["name"]);
            let before = old.list_at(&["spec", "ports"]).iter().rfind(|p| p.text_at(&["name"]) == name);
            let number = before.and_then(|p| p.int_at(&["nodePort"])).unwrap_or_default();
            if number != 0 && !kept.contains(&number) {
                port.set(&["nodePort"], number);
            }
        }
    }
    let health = ["spec", "healthCheckNodePort"];
    if needs_health_check(old)
        && needs_health_check(service)
        && service.int_at(&health).unwrap_or_default() == 0
        && let Some(port) = old.at(&health)
    {
        service.set(&health, port.clone());
    }
}

/// Old clients know only `clusterIP`: `clusterIPs` follows it where they did not mean otherwise.
fn pair_cluster_ips(service: &mut Value, old: Option<&Value>) {
    let single = ["spec", "clusterIP"];
    let plural = ["spec", "clusterIPs"];
    let ip = service.text_at(&single).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && service.list_at(&plural).is_empty() {
            service.set(&plural, json!([ip]));
        }
        return;
    };
    let same_ip = ip == old.text_at(&single);
    if same_ip && service.list_at(&plural).is_empty() && !old.list_at(&plural).is_empty() {
        service.set(&plural, old.list_at(&plural).to_vec());
    }
    let same_ips = service.list_at(&plural) == old.list_at(&plural);
    if !same_ip && same_ips {
        if ip.is_empty() {
            service.take_at(&plural);
        } else {
            service.set(&plural, json!([ip]));
        }
    }
}

fn invalid(service: &Value, errors: &Errors) -> ApiError {
    ApiError::invalid("", "Service", service.text_at(&["metadata", "name"]), &errors.0)
}

fn texts(service: &Value, field: &str) -> Vec<String> {
    let items = service.list_at(&["spec", field]);
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn family_of(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

const NOT_IN_RANGE: &str = "the provided network does not match the current range";
const ADDRESS_TAKEN: &str = "provided IP is already allocated";
const PORT_TAKEN: &str = "provided port is already allocated";
/// The last port of the default range and one: what a dry run counts up from.
const DRY_RUN_PORT: u16 = 32768;
const FULL: &str = "range is full";

struct Allocator<'a> {
    claims: &'a dyn Claims,
    rng: &'a mut dyn RngCore,
    plan: Plan,
}

impl Allocator<'_> {
    fn has_family(&self, family: &str) -> bool {
        self.claims.ranges().iter().any(|range| range.addr().is_ipv4() == (family == "IPv4"))
    }

    fn default_family(&self) -> &'static str {
        if self.claims.ranges().first().is_none_or(|range| range.addr().is_ipv4()) { "IPv4" } else { "IPv6" }
    }

    fn dual_stack(&self) -> bool {
        self.has_family("IPv4") && self.has_family("IPv6")
    }

    /// Decides policy and families from what the client asked for and what the cluster has.
    fn settle_families(&self, service: &mut Value, old: Option<&Value>) -> Result<()> {
        if kind_of(service) == "ExternalName" || old.is_some_and(|old| same_preferred(service, old)) {
            return Ok(());
        }
        let policy = ["spec", "ipFamilyPolicy"];
        let selectorless = service.text_at(&["spec", "clusterIP"]) == "None"
            && service.map_at(&["spec", "selector"]).is_none_or(|selector| selector.is_empty());
        if service.at(&policy).is_none() {
            let inherited = old.and_then(|old| old.at(&policy)).cloned();
            let fallback = if selectorless { "RequireDualStack" } else { "SingleStack" };
            service.set(&policy, inherited.unwrap_or_else(|| fallback.into()));
        }
        let mut errors = Errors::default();
        check_cluster_ips(service, &mut errors);
        if !errors.is_empty() {
            return Err(invalid(service, &errors));
        }
        let spec = Path::new("spec");
        let policy_path = spec.child("ipFamilyPolicy");
        let wanted = service.text_at(&policy).to_owned();
        let single = wanted == "SingleStack";
        if let Some(old) = old {
            for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
                let (before, after) = (old.list_at(&["spec", field]), service.list_at(&["spec", field]));
                if single && before == after && after.len() > 1 {
                    let first = after[..1].to_vec();
                    service.set(&["spec", field], first);
                } else if !single && !after.is_empty() && after.len() < before.len() {
                    let detail = format!("must be 'SingleStack' to release the secondary {what}");
                    errors.invalid(&policy_path, &wanted, detail);
                }
            }
        }
        if single {
            for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
                if service.list_at(&["spec", field]).len() == 2 {
                    let detail =
                        format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                    errors.invalid(&policy_path, &wanted, detail);
                }
            }
        }
        let mut families = texts(service, "ipFamilies");
        let ips_path = spec.child("clusterIPs");
        for (i, ip) in texts(service, "clusterIPs").iter().enumerate().take_while(|(_, ip)| *ip != "None") {
            let family = family_of(ip);
            if i < families.len() {
                continue;
            }
            if self.has_family(family) {
                families.push(family.to_owned());
            } else {
                let detail = format!("{family} is not configured on this cluster");
                errors.invalid(&ips_path.index(i), shown_list(service, "clusterIPs"), detail);
            }
        }
        if !errors.is_empty() {
            return Err(invalid(service, &errors));
        }
        // A headless service without selector has no endpoints of the cluster's making: it may have any family.
        if !selectorless {
            if wanted == "RequireDualStack" && !self.dual_stack() {
                let detail = "this cluster is not configured for dual-stack services";
                errors.invalid(&policy_path, &wanted, detail);
            }
            let path = spec.child("ipFamilies");
            for (i, family) in families.iter().enumerate().filter(|(_, family)| !self.has_family(family)) {
                errors.invalid(&path.index(i), family, "not configured on this cluster");
            }
            if !errors.is_empty() {
                return Err(invalid(service, &errors));
            }
        }
        if families.is_empty() {
            families.push(self.default_family().to_owned());
        }
        if !single && families.len() == 1 && (selectorless || self.dual_stack()) {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
        service.set(&["spec", "ipFamilies"], families);
        Ok(())
    }

    /// An address for each family that has none yet.
    fn claim_cluster_ips(&mut self, service: &mut Value) -> Result<()> {
        let mut ips = texts(service, "clusterIPs");
        if kind_of(service) == "ExternalName" || ips.first().is_some_and(|ip| ip == "None") {
            return Ok(());
        }
        for (i, family) in texts(service, "ipFamilies").iter().enumerate() {
            let asked = ips.get(i).filter(|ip| !ip.is_empty()).cloned();
            let ip = self.claim_address(service, family, asked)?;
            if i < ips.len() { ips[i] = ip } else { ips.push(ip) }
        }
        if let Some(first) = ips.first() {
            service.set(&["spec", "clusterIP"], first.clone());
        }
        service.set(&["spec", "clusterIPs"], ips);
        Ok(())
    }

    fn change_cluster_ips(&mut self, service: &mut Value, old: &Value) -> Result<()> {
        if same_preferred(service, old) {
            return Ok(());
        }
        match (kind_of(old) == "ExternalName", kind_of(service) == "ExternalName") {
            (true, false) => return self.claim_cluster_ips(service),
            (true, true) => return Ok(()),
            (false, _) if headless(old) => return Ok(()),
            (false, true) => {
                self.plan.release_addresses.extend(addresses(old));
                return Ok(());
            }
            (false, false) => {}
        }
        let (before, after) = (texts(old, "ipFamilies"), texts(service, "ipFamilies"));
        match (before.len(), after.len()) {
            (1, 2) => {
                let mut ips = texts(service, "clusterIPs");
                let asked = ips.get(1).filter(|ip| !ip.is_empty()).cloned();
                let ip = self.claim_address(service, &after[1], asked)?;
                ips.truncate(1);
                ips.push(ip);
                service.set(&["spec", "clusterIPs"], ips);
            }
            (2, 1) => self.plan.release_addresses.extend(addresses(old).get(1)),
            _ => {}
        }
        Ok(())
    }

    fn claim_address(&mut self, service: &Value, family: &str, asked: Option<String>) -> Result<String> {
        let address = match asked {
            Some(text) => {
                let ranges = self.claims.ranges().iter();
                let wrong = match names::parse_ip(&text) {
                    Some(ip) if !ranges.clone().any(|range| usable(range, ip)) => Some(NOT_IN_RANGE),
                    Some(ip) if self.claims.address_taken(ip) => Some(ADDRESS_TAKEN),
                    Some(_) => None,
                    None => Some(NOT_IN_RANGE),
                };
                if let Some(wrong) = wrong {
                    let mut errors = Errors::default();
                    let spec = Path::new("spec");
                    let detail = format!("failed to allocate IP {text}: {wrong}");
                    errors.invalid(&spec.child("clusterIPs"), shown_list(service, "clusterIPs"), detail);
                    return Err(invalid(service, &errors));
                }
                if let Some(ip) = names::parse_ip(&text) {
                    self.plan.claim_addresses.push(ip);
                }
                return Ok(text);
            }
            None => self.next_address(family),
        };
        let address = address.ok_or_else(|| ApiError::internal(format!("failed to allocate a serviceIP: {FULL}")))?;
        self.plan.claim_addresses.push(address);
        Ok(address.to_string())
    }

    /// A free address of the family: at random from the upper band of a range, which clients that name their address
    /// leave alone, and from the lower one when that is full.
    fn next_address(&mut self, family: &str) -> Option<IpAddr> {
        let claims = self.claims;
        let ranges = claims.ranges().iter().filter(|range| range.addr().is_ipv4() == (family == "IPv4"));
        for range in ranges {
            let (first, count) = hosts(range);
            let lower = band(count, 16, 16, 256);
            for (start, length) in [(lower, count - lower), (0, lower)] {
                if length == 0 {
                    continue;
                }
                let shift = self.rng.random_range(0..length);
                let free = (0..length)
                    .map(|i| offset(first, start + (shift + i) % length))
                    .find(|ip| !claims.address_taken(*ip) && !self.plan.claim_addresses.contains(ip));
                if free.is_some() {
                    return free;
                }
            }
        }
        None
    }

    fn claim_port(&mut self, port: i64) -> std::result::Result<(), String> {
        let range = self.claims.node_port_range();
        let Some(port) = u16::try_from(port).ok().filter(|port| range.contains(port)) else {
            let (low, high) = (range.start(), range.end());
            return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        };
        let released = self.plan.release_ports.contains(&port);
        if self.plan.claim_ports.contains(&port) || self.claims.node_port_taken(port) && !released {
            return Err(PORT_TAKEN.to_owned());
        }
        self.plan.claim_ports.push(port);
        Ok(())
    }

    fn next_port(&mut self) -> std::result::Result<u16, String> {
        if self.claims.dry_run() {
            let port = self.plan.claim_ports.iter().fold(DRY_RUN_PORT, |last, port| last.max(*port)).saturating_add(1);
            self.plan.claim_ports.push(port);
            return Ok(port);
        }
        let range = self.claims.node_port_range();
        let first = *range.start();
        let count = u64::from(range.end().saturating_sub(first)) + 1;
        let lower = band(count, 16, 32, 128);
        for (start, length) in [(lower, count - lower), (0, lower)] {
            if length == 0 {
                continue;
            }
            let shift = self.rng.random_range(0..length);
            // The range is of u16, so that every sum below is one too.
            let free = (0..length)
                .filter_map(|i| u16::try_from(u64::from(first) + start + (shift + i) % length).ok())
                .find(|port| !self.claims.node_port_taken(*port) && !self.plan.claim_ports.contains(port));
            if let Some(port) = free {
                self.plan.claim_ports.push(port);
                return Ok(port);
            }
        }
        Err(FULL.to_owned())
    }

    fn allocates_ports(service: &Value) -> bool {
        kind_of(service) == "NodePort"
            || kind_of(service) == "LoadBalancer"
                && service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false)
    }

    fn any_port(&mut self) -> Result<u16> {
        self.next_port().map_err(|why| ApiError::internal(format!("failed to allocate a nodePort: {why}")))
    }

    fn named_port(&mut self, service: &Value, index: usize, port: i64) -> Result<()> {
        self.claim_port(port).map_err(|why| {
            let mut errors = Errors::default();
            let spec = Path::new("spec");
            let ports = spec.child("ports");
            errors.invalid(&ports.index(index).child("nodePort"), port, why);
            invalid(service, &errors)
        })
    }

    /// Ports of one number share a node port where the client does not say otherwise (DNS over TCP and UDP).
    fn claim_node_ports(&mut self, service: &mut Value) -> Result<()> {
        let allocates = Self::allocates_ports(service);
        let mut given: Vec<(i64, i64)> = Vec::new();
        for i in 0..service.list_at(&["spec", "ports"]).len() {
            let ports = service.list_at(&["spec", "ports"]);
            let number = ports[i].int_at(&["port"]).unwrap_or_default();
            let own = ports[i].int_at(&["nodePort"]).unwrap_or_default();
            if own == 0 && !allocates {
                continue;
            }
            let shared = given.iter().find(|(port, _)| *port == number).map(|(_, node)| *node);
            let node = match shared {
                Some(shared) if own == 0 || own == shared => shared,
                Some(_) => {
                    self.named_port(service, i, own)?;
                    own
                }
                None => {
                    let asked = ports.iter().filter(|p| p.int_at(&["port"]) == Some(number));
                    let asked = asked.filter_map(|p| p.int_at(&["nodePort"])).find(|node| *node != 0);
                    let node = match asked {
                        Some(node) => {
                            self.named_port(service, i, node)?;
                            node
                        }
                        None => i64::from(self.any_port()?),
                    };
                    given.push((number, node));
                    node
                }
            };
            if let Some(port) = service.items_mut(&["spec", "ports"]).nth(i) {
                port.set(&["nodePort"], node);
            }
        }
        Ok(())
    }

    fn change_node_ports(&mut self, service: &mut Value, old: &Value) -> Result<()> {
        let before = node_ports(old);
        let mut seen: Vec<(String, i64)> = Vec::new();
        if has_node_ports(service) {
            let allocates = Self::allocates_ports(service);
            for i in 0..service.list_at(&["spec", "ports"]).len() {
                let port = &service.list_at(&["spec", "ports"])[i];
                let protocol = port.text_at(&["protocol"]).to_owned();
                let mut node = port.int_at(&["nodePort"]).unwrap_or_default();
                if node == 0 && !allocates {
                    continue;
                }
                if node == 0 {
                    node = i64::from(self.any_port()?);
                    if let Some(port) = service.items_mut(&["spec", "ports"]).nth(i) {
                        port.set(&["nodePort"], node);
                    }
                } else if !before.contains(&node) && !seen.iter().any(|(_, other)| *other == node) {
                    self.named_port(service, i, node)?;
                }
                if seen.iter().any(|(p, n)| *p == protocol && *n == node) {
                    return Err(ApiError::new(500, "", format!("duplicate nodePort: {{{protocol} {node}}}")));
                }
                seen.push((protocol, node));
            }
        }
        if has_node_ports(old) {
            let mut gone = before;
            let kept = if has_node_ports(service) { node_ports(service) } else { Vec::new() };
            gone.retain(|port| !kept.contains(port));
            gone.sort_unstable();
            gone.dedup();
            self.plan.release_ports.extend(gone.into_iter().filter_map(|port| u16::try_from(port).ok()));
        }
        Ok(())
    }

    fn claim_health_check(&mut self, service: &mut Value) -> Result<()> {
        let path = ["spec", "healthCheckNodePort"];
        let asked = service.int_at(&path).unwrap_or_default();
        if asked != 0 {
            return self.claim_port(asked).map_err(|why| {
                ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
            });
        }
        let port = self
            .next_port()
            .map_err(|why| ApiError::internal(format!("failed to allocate a HealthCheck NodePort 0: {why}")))?;
        service.set(&path, port);
        Ok(())
    }
}

/// A service that prefers dual-stack is neither upgraded nor downgraded in passing.
fn same_preferred(service: &Value, old: &Value) -> bool {
    let prefers = |service: &Value| service.text_at(&["spec", "ipFamilyPolicy"]) == "PreferDualStack";
    let same = |field: &str| service.list_at(&["spec", field]) == old.list_at(&["spec", field]);
    prefers(service)
        && (prefers(old) || old.at(&["spec", "ipFamilyPolicy"]).is_none())
        && kind_of(service) == kind_of(old)
        && needs_cluster_ip(service)
        && same("clusterIPs")
        && same("ipFamilies")
}

/// How much of a range is kept for clients that name what they want.
fn band(count: u64, min: u64, step: u64, max: u64) -> u64 {
    if count < min { 0 } else { (count / step).clamp(min.min(count), max) }
}

/// The first address of a range that a service can have, and how many there are from there on.
fn hosts(range: &IpNet) -> (IpAddr, u64) {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = if bits >= 63 { 1 << 62 } else { 1u64 << bits };
    let reserved = if range.addr().is_ipv4() { 2 } else { 1 };
    (offset(range.network(), 1), size.saturating_sub(reserved))
}

fn offset(first: IpAddr, by: u64) -> IpAddr {
    match first {
        IpAddr::V4(ip) => {
            let by = u32::try_from(by).unwrap_or(u32::MAX);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip).saturating_add(by)))
        }
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip).saturating_add(u128::from(by)))),
    }
}

/// Neither the network's own address nor, with IPv4, its broadcast address.
fn usable(range: &IpNet, ip: IpAddr) -> bool {
    range.contains(&ip) && ip != range.network() && (ip.is_ipv6() || ip != range.broadcast())
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::service::Service;
    use super::*;

    struct Fixed {
        ranges: Vec<IpNet>,
        addresses: Vec<&'static str>,
        ports: Vec<u16>,
    }

    impl Claims for Fixed {
        fn ranges(&self) -> &[IpNet] {
            &self.ranges
        }

        fn node_port_range(&self) -> RangeInclusive<u16> {
            30000..=32767
        }

        fn address_taken(&self, address: IpAddr) -> bool {
            self.addresses.iter().any(|text| *text == address.to_string())
        }

        fn node_port_taken(&self, port: u16) -> bool {
            self.ports.contains(&port)
        }
    }

    fn cluster(ranges: &[&str]) -> Fixed {
        let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        Fixed { ranges, addresses: vec!["10.0.0.1"], ports: vec![30100] }
    }

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        Service.default(&mut service);
        service
    }

    fn made(spec: Value) -> (Value, Result<Plan>) {
        let mut service = service(spec);
        let plan = create(&mut service, &cluster(&["10.0.0.0/24"]), &mut rand::rng());
        (service, plan)
    }

    fn message(plan: Result<Plan>) -> String {
        plan.unwrap_err().message
    }

    #[test]
    fn addresses_come_from_the_upper_band() {
        for _ in 0..50 {
            let (service, plan) = made(json!({"ports": [{"port": 80}]}));
            let ip: Ipv4Addr = service.text_at(&["spec", "clusterIP"]).parse().unwrap();
            assert!((17..=254).contains(&ip.octets()[3]), "{ip}");
            assert_eq!(plan.unwrap().claim_addresses, [IpAddr::V4(ip)]);
            assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
        }
    }

    #[test]
    fn a_named_address_must_be_free_and_of_the_range() {
        let with = |ip: &str| made(json!({"clusterIP": ip, "ports": [{"port": 80}]})).1;
        assert!(with("10.0.0.7").is_ok());
        assert!(message(with("10.0.0.1")).contains("failed to allocate IP 10.0.0.1: provided IP is already allocated"));
        for outside in ["10.0.0.0", "10.0.0.255", "10.1.0.1"] {
            assert!(message(with(outside)).contains(NOT_IN_RANGE));
        }
        assert!(message(with("fd00::1")).contains("IPv6 is not configured on this cluster"));
    }

    #[test]
    fn headless_services_without_selector_are_of_both_families() {
        let (service, plan) = made(json!({"clusterIP": "None"}));
        assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(service["spec"]["ipFamilyPolicy"], "RequireDualStack");
        assert_eq!(plan.unwrap(), Plan::default());
    }

    #[test]
    fn dual_stack_where_the_cluster_has_it() {
        let mut service = service(json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}));
        let claims = cluster(&["10.0.0.0/24", "fd00::/108"]);
        let plan = create(&mut service, &claims, &mut rand::rng()).unwrap();
        assert_eq!(plan.claim_addresses.len(), 2);
        assert_eq!(service["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
        let mut single = service.clone();
        single["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        let plan = update(&mut single, &service, &claims, &mut rand::rng()).unwrap();
        assert_eq!(plan.release_addresses.len(), 1);
        assert!(plan.release_addresses[0].is_ipv6());
    }

    #[test]
    fn ports_of_one_number_share_a_node_port() {
        let ports = json!([{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]);
        let (service, plan) = made(json!({"type": "NodePort", "ports": ports}));
        let ports = node_ports(&service);
        assert_eq!(ports[0], ports[1]);
        assert!((30086..=32767).contains(&ports[0]));
        assert_eq!(plan.unwrap().claim_ports.len(), 1);
    }

    #[test]
    fn node_ports_are_checked() {
        let with = |ports: Value| message(made(json!({"type": "NodePort", "ports": ports})).1);
        assert!(with(json!([{"port": 80, "nodePort": 30100}])).contains(PORT_TAKEN));
        assert!(with(json!([{"port": 80, "nodePort": 100}])).contains("The range of valid ports is 30000-32767"));
        let twice = json!([{"port": 80, "nodePort": 31000}, {"port": 81, "nodePort": 31000}]);
        assert!(
            with(twice).contains("spec.ports[1].nodePort: Invalid value: 31000: provided port is already allocated")
        );
    }

    #[test]
    fn a_change_of_type_claims_and_releases() {
        let claims = cluster(&["10.0.0.0/24"]);
        let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        create(&mut old, &claims, &mut rand::rng()).unwrap();
        let mut bare = service(json!({"type": "NodePort", "ports": [{"port": 81}]}));
        assert_eq!(update(&mut bare, &old, &claims, &mut rand::rng()).unwrap(), Plan::default());
        assert_eq!(node_ports(&bare), node_ports(&old));

        let mut external = old.clone();
        external["spec"]["type"] = json!("ExternalName");
        external["spec"]["externalName"] = json!("x.example.com");
        let plan = update(&mut external, &old, &claims, &mut rand::rng()).unwrap();
        assert_eq!((plan.release_addresses.len(), plan.release_ports.len()), (1, 1));
        Service.prepare_update(&mut external, &old);
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            assert!(external.at(&["spec", field]).is_none(), "{field}");
        }
        let mut errors = Errors::default();
        Service.validate_update(&external, &old, &mut errors);
        assert_eq!(errors.0, []);
        assert_eq!(delete(&old).release_ports, plan.release_ports);
    }

    #[test]
    fn a_full_range_says_so() {
        let mut claims = cluster(&["10.0.0.0/30"]);
        claims.addresses = vec!["10.0.0.1", "10.0.0.2"];
        let mut service = service(json!({"ports": [{"port": 80}]}));
        let plan = create(&mut service, &claims, &mut rand::rng());
        assert_eq!(message(plan), "Internal error occurred: failed to allocate a serviceIP: range is full");
    }
}
