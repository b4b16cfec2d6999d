//! `/livez`, `/readyz` and `/healthz`: kube-apiserver's checks by name, as far as they have a meaning here.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::SetOnce;

use crate::request::Query;

/// What the checks ask about: how far the server's life has come. Each is set once.
#[derive(Default)]
pub struct Health {
    /// The state is as new as what this replica has shown before it was started.
    caught_up: SetOnce<()>,
    /// The objects that every cluster has are there.
    bootstrapped: AtomicBool,
    terminating: AtomicBool,
}

/// What a check asks.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    /// Whether anybody answers.
    Nothing,
    Bootstrapped,
    NotStopping,
    /// Whether this replica is up to date and sees a leader.
    Leader,
}

use Asks::{Bootstrapped, Leader, NotStopping, Nothing};

#[derive(Clone, Copy, PartialEq)]
enum In {
    Both,
    Live,
    Ready,
}

use In::{Both, Live, Ready};

/// In the order of upstream's answers.
const CHECKS: &[(&str, Asks, In)] = &[
    ("ping", Nothing, Both),
    ("log", Nothing, Both),
    ("loopback-serving-certificate", Nothing, Live),
    ("etcd", Nothing, Live),
    ("informer-sync", Leader, Ready),
    ("poststarthook/start-apiserver-admission-initializer", Nothing, Both),
    ("poststarthook/generic-apiserver-start-informers", Nothing, Both),
    ("poststarthook/priority-and-fairness-config-consumer", Nothing, Both),
    ("poststarthook/priority-and-fairness-filter", Nothing, Both),
    ("poststarthook/storage-object-count-tracker-hook", Nothing, Both),
    ("poststarthook/start-apiextensions-informers", Nothing, Both),
    ("poststarthook/start-apiextensions-controllers", Nothing, Both),
    ("poststarthook/crd-informer-synced", Nothing, Both),
    ("poststarthook/start-system-namespaces-controller", Bootstrapped, Both),
    ("poststarthook/peer-endpoint-reconciler-controller", Nothing, Both),
    ("poststarthook/start-cluster-authentication-info-controller", Nothing, Both),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", Nothing, Both),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", Nothing, Both),
    ("poststarthook/storage-readiness", Nothing, Both),
    ("poststarthook/start-legacy-token-tracking-controller", Bootstrapped, Both),
    ("poststarthook/start-service-ip-repair-controllers", Nothing, Both),
    ("poststarthook/rbac/bootstrap-roles", Bootstrapped, Both),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Bootstrapped, Both),
    ("poststarthook/priority-and-fairness-config-producer", Bootstrapped, Both),
    ("poststarthook/bootstrap-controller", Bootstrapped, Both),
    ("poststarthook/start-kubernetes-service-cidr-controller", Bootstrapped, Both),
    ("poststarthook/start-kube-aggregator-informers", Nothing, Both),
    ("poststarthook/apiservice-status-local-available-controller", Nothing, Both),
    ("poststarthook/apiservice-status-remote-available-controller", Nothing, Both),
    ("poststarthook/apiservice-registration-controller", Nothing, Both),
    ("poststarthook/apiservice-wait-for-first-sync", Nothing, Both),
    ("poststarthook/apiservice-discovery-controller", Nothing, Both),
    ("poststarthook/kube-apiserver-autoregistration", Nothing, Both),
    ("autoregister-completion", Bootstrapped, Both),
    ("poststarthook/apiservice-openapi-controller", Nothing, Both),
    ("poststarthook/apiservice-openapiv3-controller", Nothing, Both),
    ("shutdown", NotStopping, Ready),
];

/// All paths of checks.
pub fn paths() -> impl Iterator<Item = String> {
    ["/healthz", "/livez", "/readyz"].into_iter().flat_map(|endpoint| {
        let others = if endpoint == "/readyz" { Live } else { Ready };
        let checks = CHECKS.iter().filter(move |(.., place)| *place != others);
        let single = checks.map(move |(name, ..)| format!("{endpoint}/{name}"));
        single.chain([endpoint.to_owned()])
    })
}

/// A plain answer.
pub struct Told {
    pub code: u16,
    pub text: String,
}

impl Health {
    pub fn set_caught_up(&self) {
        let _ = self.caught_up.set(());
    }

    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Relaxed);
    }

    pub fn set_terminating(&self) {
        self.terminating.store(true, Ordering::Relaxed);
    }

    /// Whether objects may be shown.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.initialized()
    }

    /// Waits until objects may be shown.
    pub async fn caught_up(&self) {
        self.caught_up.wait().await;
    }

    /// Answers a path below `/livez`, `/readyz` or `/healthz`; None where there is no such check. `obstacle` is what
    /// keeps this replica from being up to date.
    pub fn answer(&self, path: &str, query: &Query, obstacle: Option<&'static str>) -> Option<Told> {
        let path = path.strip_prefix('/')?;
        let (endpoint, single) = path.split_once('/').map_or((path, None), |(endpoint, check)| (endpoint, Some(check)));
        let others = match endpoint {
            "readyz" => Live,
            "livez" | "healthz" => Ready,
            _ => return None,
        };
        let checks = || CHECKS.iter().filter(|(.., place)| *place != others);
        let failure = |asks: Asks| self.failure(asks, endpoint == "readyz", obstacle);
        if let Some(single) = single {
            let (_, asks, _) = checks().find(|(name, ..)| *name == single)?;
            return Some(match failure(*asks) {
                None => Told { code: 200, text: "ok".into() },
                Some(why) => Told { code: 500, text: format!("internal server error: {why}\n") },
            });
        }
        let mut excluded: Vec<&str> = query.all("exclude").collect();
        excluded.sort_unstable();
        excluded.dedup();
        let (mut text, mut failed) = (String::new(), false);
        // Writing to a string can't fail.
        for (name, asks, _) in checks() {
            if let Some(at) = excluded.iter().position(|other| other == name) {
                excluded.remove(at);
                let _ = writeln!(text, "[+]{name} excluded: ok");
            } else if let Some(why) = failure(*asks) {
                tracing::debug!(check = name, why, "{endpoint} failed");
                failed = true;
                // Anybody may read this; the reason is for those who may ask the single check.
                let _ = writeln!(text, "[-]{name} failed: reason withheld");
            } else {
                let _ = writeln!(text, "[+]{name} ok");
            }
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| crate::field::go_quote(name)).collect();
            let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", names.join(","));
        }
        Some(match (failed, query.get("verbose")) {
            (true, _) => Told { code: 500, text: format!("{text}{endpoint} check failed\n") },
            (false, None) => Told { code: 200, text: "ok".into() },
            (false, Some(_)) => Told { code: 200, text: format!("{text}{endpoint} check passed\n") },
        })
    }

    fn failure(&self, asks: Asks, ready: bool, obstacle: Option<&'static str>) -> Option<&'static str> {
        match asks {
            Nothing => None,
            // To start again would not help a replica that is waiting for the others.
            Bootstrapped if !ready => None,
            Bootstrapped => (!self.bootstrapped.load(Ordering::Relaxed)).then_some("not finished"),
            NotStopping => self.terminating.load(Ordering::Relaxed).then_some("process is shutting down"),
            Leader if !self.is_caught_up() => Some("this replica has not caught up yet"),
            Leader => obstacle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(health: &Health, path: &str, query: &str) -> (u16, String) {
        let told = health.answer(path, &Query::read(Some(query)), None).unwrap();
        (told.code, told.text)
    }

    #[test]
    fn readiness_follows_the_life_of_the_server() {
        let health = Health::default();
        assert_eq!(ask(&health, "/readyz", "").0, 500);
        assert_eq!(ask(&health, "/livez", ""), (200, "ok".into()));
        health.set_caught_up();
        health.set_bootstrapped();
        assert_eq!(ask(&health, "/readyz", "").0, 200);
        health.set_terminating();
        let (code, text) = ask(&health, "/readyz", "exclude=ping&exclude=x");
        assert_eq!(code, 500);
        for line in ["[+]ping excluded: ok", "[-]shutdown failed: reason withheld", "no matches for \"x\""] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(ask(&health, "/readyz", "exclude=shutdown").0, 200);
        assert_eq!(ask(&health, "/livez/etcd", ""), (200, "ok".into()));
        assert!(health.answer("/readyz/etcd", &Query::default(), None).is_none());
    }

    #[test]
    fn verbose_answers_are_upstreams() {
        let health = Health::default();
        health.set_caught_up();
        health.set_bootstrapped();
        for endpoint in ["livez", "readyz"] {
            let path =
                format!("{}/../shared/kubernetes-1.36/discovery/{endpoint}-verbose.txt", env!("CARGO_MANIFEST_DIR"));
            match std::fs::read_to_string(&path) {
                Ok(expected) => assert_eq!(ask(&health, &format!("/{endpoint}"), "verbose").1.trim(), expected.trim()),
                Err(_) => eprintln!("skipped: {path} is not here"),
            }
        }
    }
}
