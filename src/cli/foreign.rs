//! Flags of kube-apiserver that Kontiki hasn't got. One whose value asks for what is so anyway is set aside with a word
//! in the log, so that what kubeadm, kind or k3s pass can be passed; for any other the error says what it would ask for,
//! and what to do.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};

use super::gates;
use crate::discovery::Registry;

use Takes::{Switch, Value};

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// `--flag` or `--flag=value`.
    Switch,
    /// `--flag=value` or `--flag value`.
    Value,
}

/// Nothing that a client sees, and nobody's rights, depend on these.
const HARMLESS: &[(&str, Takes, &str)] = &[
    ("aggregator-reject-forwarding-redirect", Switch, "there are no aggregated API servers yet"),
    ("alsologtostderr", Switch, "logs go to stderr"),
    ("apiserver-count", Value, "endpoints always follow the replicas' leases"),
    ("cert-dir", Value, "--data-dir and --pki-dir say where certificates are"),
    ("contention-profiling", Switch, "there is no Go runtime to profile"),
    ("default-watch-cache-size", Value, "watches are served from the state itself"),
    ("delete-collection-workers", Value, "a collection is deleted in transactions"),
    ("enable-aggregator-routing", Switch, "there are no aggregated API servers yet"),
    ("enable-priority-and-fairness", Switch, "requests are limited in number, not queued"),
    ("etcd-compaction-interval", Value, "there is no etcd"),
    ("etcd-count-metric-poll-period", Value, "there is no etcd"),
    ("etcd-db-metric-poll-interval", Value, "there is no etcd"),
    ("etcd-healthcheck-timeout", Value, "there is no etcd"),
    ("etcd-prefix", Value, "there is no etcd"),
    ("etcd-readycheck-timeout", Value, "there is no etcd"),
    ("goaway-chance", Value, "connections are not moved between replicas"),
    ("kubelet-certificate-authority", Value, "there are no connections to kubelets yet"),
    ("kubelet-client-certificate", Value, "there are no connections to kubelets yet"),
    ("kubelet-client-key", Value, "there are no connections to kubelets yet"),
    ("kubelet-https", Switch, "there are no connections to kubelets yet"),
    ("kubelet-preferred-address-types", Value, "there are no connections to kubelets yet"),
    ("kubelet-timeout", Value, "there are no connections to kubelets yet"),
    ("lease-reuse-duration-seconds", Value, "objects expire one by one"),
    ("livez-grace-period", Value, "a replica is alive from its start"),
    ("log-flush-frequency", Value, "logs are not buffered"),
    ("profiling", Switch, "there is no Go runtime to profile"),
    ("proxy-client-cert-file", Value, "there are no aggregated API servers yet"),
    ("proxy-client-key-file", Value, "there are no aggregated API servers yet"),
    ("requestheader-allowed-names", Value, "identities in headers are never trusted"),
    ("requestheader-client-ca-file", Value, "identities in headers are never trusted"),
    ("requestheader-extra-headers-prefix", Value, "identities in headers are never trusted"),
    ("requestheader-group-headers", Value, "identities in headers are never trusted"),
    ("requestheader-uid-headers", Value, "identities in headers are never trusted"),
    ("requestheader-username-headers", Value, "identities in headers are never trusted"),
    ("service-account-extend-token-expiration", Switch, "tokens live as long as they say"),
    ("shutdown-send-retry-after", Switch, "a replica that stops finishes what it has begun"),
    ("stderrthreshold", Value, "logs go to stderr"),
    ("storage-initialization-timeout", Value, "a replica is ready when it is"),
    ("storage-media-type", Value, "objects are stored as JSON"),
    ("target-ram-mb", Value, "--storage-memory-budget says what the database may use"),
    ("vmodule", Value, "set RUST_LOG to log more of single modules"),
    ("watch-cache", Switch, "watches are served from the state itself"),
    ("watch-cache-sizes", Value, "watches are served from the state itself"),
];

/// One answer for these values, and what another value asks for.
type Depends = (&'static str, Takes, &'static [&'static str], &'static str, &'static str);

/// Harmless with the values that ask for what is so anyway.
const DEPENDS: &[Depends] = &[
    ("allow-privileged", Switch, ON, "privileged containers are always allowed", "way to forbid privileged containers"),
    ("cloud-provider", Value, &["external"], "there are no cloud providers inside", "cloud providers inside"),
    ("default-not-ready-toleration-seconds", Value, &["300"], "it is so anyway", OTHER_TOLERATIONS),
    ("default-unreachable-toleration-seconds", Value, &["300"], "it is so anyway", OTHER_TOLERATIONS),
    ("disable-http2-serving", Switch, OFF, "HTTP/2 is always served", "way to refuse HTTP/2"),
    ("emulated-version", Value, SERVED, "it is the version that is served", EMULATION),
    ("emulation-forward-compatible", Switch, OFF, "there is no emulation", EMULATION),
    ("enable-garbage-collector", Switch, ON, "dependents are always left to the garbage collector", NO_COLLECTOR),
    ("enable-logs-handler", Switch, OFF, "there is no path that serves logs", "path that serves logs"),
    ("encryption-provider-config-automatic-reload", Switch, OFF, "nothing is encrypted at rest", "encryption at rest"),
    ("endpoint-reconciler-type", Value, &["lease"], "endpoints always follow the replicas' leases", RECONCILER),
    ("insecure-port", Value, &["0"], "there is no port without TLS", "port without TLS"),
    ("kubernetes-service-node-port", Value, &["0"], "it has no node port", "node port for the kubernetes service"),
    ("log-json-info-buffer-size", Value, &["0"], "logs are not buffered", "buffers for logs"),
    ("log-json-split-stream", Switch, OFF, "logs go to stderr", "log on stdout"),
    ("log-text-info-buffer-size", Value, &["0"], "logs are not buffered", "buffers for logs"),
    ("log-text-split-stream", Switch, OFF, "logs go to stderr", "log on stdout"),
    ("logtostderr", Switch, ON, "logs go to stderr", "log but that on stderr"),
    ("max-connection-bytes-per-sec", Value, &["0"], "bandwidth is not limited", "limits on bandwidth"),
    ("min-compatibility-version", Value, SERVED, "it is the version that is served", "compatibility with others"),
    ("permit-address-sharing", Switch, OFF, "sockets are not shared", "shared sockets"),
    ("permit-port-sharing", Switch, OFF, "sockets are not shared", "shared sockets"),
    ("runtime-config-emulation-forward-compatible", Switch, OFF, "there is no emulation", EMULATION),
    ("send-retry-after-while-not-ready-once", Switch, OFF, "requests wait until a replica is ready", REFUSAL),
    ("service-account-lookup", Switch, ON, "service accounts are always looked up", "tokens without accounts"),
    ("shutdown-watch-termination-grace-period", Value, &["0s", "0"], "watches end when the replica stops", WATCH_GRACE),
    ("storage-backend", Value, &["etcd3"], "Kontiki's replicas are their own store", "store but its replicas"),
    // A flag of its own, but not down to these.
    ("tls-min-version", Value, &["VersionTLS10", "VersionTLS11"], "TLS 1.2 is the oldest that is spoken", ""),
];

const ON: &[&str] = &["true", "True", "TRUE", "t", "T", "1"];
const OFF: &[&str] = &["false", "False", "FALSE", "f", "F", "0"];
const SERVED: &[&str] = &["1.36", "kube=1.36"];
const OTHER_TOLERATIONS: &str = "other default tolerations than those of 300 seconds";
const EMULATION: &str = "emulation of other versions";
const NO_COLLECTOR: &str = "way to do without the garbage collector";
const RECONCILER: &str = "reconciler of endpoints but that of leases";
const REFUSAL: &str = "refusal of requests before it is ready";
const WATCH_GRACE: &str = "grace period for watches, which end when the replica stops";

/// Flags by how they begin, and what they ask for. Without it a server would do something else than it was told. One
/// that is empty asks for nothing.
const MISSED: &[(&str, &str)] = &[
    ("admission-control", "configuration of admission plugins"),
    ("allow-metric-labels", "limits on the labels of metrics"),
    ("audit-", "audit log"),
    ("authentication-", "webhook authentication"),
    ("authorization-config", "authorization by configuration file"),
    ("authorization-policy-file", "authorization by policy file"),
    ("authorization-webhook-", "authorization by webhook"),
    ("basic-auth-file", "passwords"),
    ("cloud-config", "cloud providers inside"),
    ("coordinated-leadership-", "coordinated leader election"),
    ("cors-allowed-origins", "CORS"),
    ("debug-socket-path", "socket for profiling"),
    ("disabled-metrics", "choice of metrics"),
    ("egress-selector-config-file", "egress selection"),
    ("encryption-provider-config", "encryption at rest"),
    ("insecure-bind-address", "port without TLS"),
    ("log-dir", "log but that on stderr"),
    ("log-file", "log but that on stderr"),
    ("oidc-", "OpenID Connect"),
    ("peer-advertise-", "proxy between versions"),
    ("peer-ca-file", "proxy between versions"),
    ("service-account-jwks-uri", "other place for the key set"),
    ("service-account-signing-endpoint", "signing by another process"),
    ("show-hidden-metrics-for-version", "hidden metrics"),
    ("strict-transport-security-directives", "HSTS"),
    ("tls-curve-preferences", "choice of curves"),
    ("tls-sni-cert-key", "choice of serving certificates"),
    ("tracing-config-file", "tracing to a collector"),
];

/// What to do about a flag.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It has no effect, and why.
    Harmless(String),
    /// Why it can't be, and what to remove.
    Refused(String, String),
}

use Verdict::{Harmless, Refused};

/// None: no flag of kube-apiserver's, or one of our own.
fn judge(name: &str, value: &str) -> Option<Verdict> {
    let whole = |why: String| Refused(why, format!("--{name}"));
    if let Some((.., why)) = HARMLESS.iter().find(|(harmless, ..)| *harmless == name) {
        return Some(Harmless((*why).into()));
    }
    if let Some((_, _, so, why, missed)) = DEPENDS.iter().find(|(depends, ..)| *depends == name) {
        return match so.contains(&value) || value.is_empty() {
            true => Some(Harmless((*why).into())),
            false if missed.is_empty() => None,
            false => Some(whole(lacks(missed))),
        };
    }
    let parts = || value.split(',').map(str::trim).filter(|part| !part.is_empty());
    let other: Option<&str> = match name {
        "etcd-servers" | "etcd-servers-overrides" | "etcd-cafile" | "etcd-certfile" | "etcd-keyfile" => {
            return Some(whole("Kontiki's replicas are their own store and need no etcd".into()));
        }
        "enable-admission-plugins" => parts().find(|name| !PLUGINS.contains(name) && !NOT_YET.contains(name)),
        "disable-admission-plugins" => parts().find(|name| PLUGINS.contains(name)),
        "feature-gates" => parts().find(|part| !is_default_gate(part)),
        "runtime-config" => parts().find(|part| !is_served(part)),
        _ => {
            let (_, what) = MISSED.iter().find(|(start, _)| name.starts_with(start))?;
            return Some(if value.is_empty() { Harmless("it is empty".into()) } else { whole(lacks(what)) });
        }
    };
    let Some(part) = other else {
        let asked = name == "enable-admission-plugins";
        let missing: Vec<&str> = parts().filter(|name| asked && NOT_YET.contains(name)).collect();
        return Some(Harmless(match missing.is_empty() {
            false => format!("there is no {} yet: nothing is checked by it", missing.join(", ")),
            true => "it asks for what is so by default".into(),
        }));
    };
    let why = match name {
        "enable-admission-plugins" => lacks(&format!("admission plugin {part}")),
        "disable-admission-plugins" => lacks(&format!("way to do without {part}")),
        _ => {
            format!("Kontiki {} serves what Kubernetes 1.36 does by default, and {part} is not so", crate::version::OWN)
        }
    };
    Some(Refused(why, format!("{part} from --{name}")))
}

fn lacks(what: &str) -> String {
    format!("Kontiki {} has no {what}", crate::version::OWN)
}

/// On by default in kube-apiserver, so that naming them changes nothing there either.
const PLUGINS: &[&str] = &[
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "JobValidation",
    "LimitRanger",
    "NamespaceLifecycle",
    "NodeDeclaredFeatureValidator",
    "PersistentVolumeClaimResize",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodResizeValidator",
    "PodSecurity",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
];
/// What most clusters ask for, and Kontiki says that it lacks rather than not start.
const NOT_YET: &[&str] = &[
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NodeRestriction",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// `Gate=true` or `kube:Gate=false`.
fn is_default_gate(part: &str) -> bool {
    let part = part.strip_prefix("kube:").unwrap_or(part);
    let (gate, value) = part.split_once('=').unwrap_or((part, ""));
    let on = gates::ON.contains(&gate);
    if on { ON.contains(&value) } else { OFF.contains(&value) }
}

/// `v1=true`, `apps/v1=true`, `apps/v1/deployments=true` or `api/beta=false`, if it is so.
fn is_served(part: &str) -> bool {
    let (api, value) = part.split_once('=').unwrap_or((part, "true"));
    let asked = match (ON.contains(&value), OFF.contains(&value)) {
        (true, _) => true,
        (_, true) => false,
        _ => return false,
    };
    let registry = Registry::builtin();
    let unstable = |stage| registry.resources().any(|resource| resource.version.contains(stage));
    let mut names = api.split('/');
    match (names.next().unwrap_or_default(), names.next(), names.next()) {
        ("api", Some("ga" | "legacy"), None) => asked,
        ("api", Some(stage @ ("alpha" | "beta")), None) => !asked && !unstable(stage),
        ("api", ..) => false,
        (version, None, None) => asked == registry.version("", version).is_some(),
        (group, Some(version), None) => asked == registry.version(group, version).is_some(),
        (group, Some(version), Some(plural)) => asked == registry.find(group, version, plural).is_some(),
        (_, None, Some(_)) => false,
    }
}

/// Whether the value of a flag without `=` is the next argument.
fn takes(name: &str) -> Takes {
    let harmless = HARMLESS.iter().map(|(flag, takes, _)| (*flag, *takes));
    let mut known = harmless.chain(DEPENDS.iter().map(|(flag, takes, ..)| (*flag, *takes)));
    known.find(|(flag, _)| *flag == name).map_or(Value, |(_, takes)| takes)
}

/// Takes the harmless flags out of the arguments of `kontiki serve`; returns the rest, and what to say about them. The
/// error tells of all that can't be.
pub fn set_aside(arguments: Vec<OsString>) -> Result<(Vec<OsString>, Vec<String>), Error> {
    let (mut rest, mut said) = (Vec::new(), Vec::new());
    let mut refused: Vec<(String, Vec<String>)> = Vec::new();
    let serving = arguments.get(1).is_some_and(|command| command == "serve");
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--")).filter(|_| serving);
        let (name, value) = flag.map_or(("", None), |flag| match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        });
        let next = arguments.peek().and_then(|next| next.to_str()).filter(|next| !next.starts_with("--"));
        let next = next.filter(|_| value.is_none() && takes(name) == Value);
        let apart = next.is_some();
        match judge(name, value.or(next).unwrap_or("true")) {
            None => {
                rest.push(argument);
                continue;
            }
            Some(Harmless(why)) => said.push(format!("--{name} has no effect: {why}")),
            Some(Refused(why, what)) => match refused.iter_mut().find(|(other, _)| *other == why) {
                Some((_, all)) => all.push(what),
                None => refused.push((why, vec![what])),
            },
        }
        if apart {
            arguments.next();
        }
    }
    if refused.is_empty() {
        return Ok((rest, said));
    }
    let lines = refused.iter().map(|(why, what)| format!("{why}: remove {}", enumeration(what)));
    let mut command = super::Cli::command();
    command.build();
    let serve = command.find_subcommand_mut("serve").expect("serve is a command");
    Err(serve.error(ErrorKind::UnknownArgument, lines.collect::<Vec<_>>().join("\n       ")))
}

/// `a`, `a and b`, `a, b and c`.
fn enumeration(names: &[String]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        names => names.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let (rest, said) =
            set_aside(line.split(' ').map(OsString::from).collect()).map_err(|error| error.to_string())?;
        Ok((rest.into_iter().map(|argument| argument.into_string().unwrap()).collect(), said))
    }

    #[test]
    fn harmless_flags_go_with_their_values() {
        let line = "kontiki serve --profiling=false --data-dir d --kubelet-timeout 5s --watch-cache --secure-port 1";
        let (rest, said) = split(line).unwrap();
        assert_eq!(rest, ["kontiki", "serve", "--data-dir", "d", "--secure-port", "1"]);
        assert_eq!(said.len(), 3);
        assert_eq!(split("kontiki status --profiling").unwrap().0.len(), 3);
    }

    #[test]
    fn what_is_so_anyway_may_be_asked_for() {
        for flag in [
            "allow-privileged",
            "allow-privileged=true",
            "audit-policy-file=",
            "disable-admission-plugins=AlwaysPullImages",
            "enable-admission-plugins=NodeRestriction,LimitRanger",
            "endpoint-reconciler-type lease",
            "feature-gates=",
            "feature-gates=WatchList=true,kube:AllAlpha=false",
            "insecure-port 0",
            "runtime-config=",
            "runtime-config=v1=true,apps/v1,api/alpha=false,batch/v2alpha1=false,apps/v1/deployments=true",
            "storage-backend=etcd3",
            "tls-min-version=VersionTLS10",
        ] {
            let (rest, said) = split(&format!("kontiki serve --{flag}")).unwrap();
            assert_eq!((rest.len(), said.len()), (2, 1), "{flag}");
        }
        for (flag, told) in [
            ("allow-privileged=false", "has no way to forbid privileged containers: remove --allow-privileged"),
            ("admission-control-config-file=f", "has no configuration of admission plugins: remove --admission"),
            (
                "enable-admission-plugins=LimitRanger,AlwaysPullImages",
                "has no admission plugin AlwaysPullImages: remove AlwaysPullImages from",
            ),
            (
                "disable-admission-plugins=PodSecurity",
                "has no way to do without PodSecurity: remove PodSecurity from --disable",
            ),
            ("feature-gates=AllAlpha=true", "remove AllAlpha=true from --feature-gates"),
            ("feature-gates=WatchList=false", "remove WatchList=false from --feature-gates"),
            ("runtime-config=api/all=true", "remove api/all=true from --runtime-config"),
            ("runtime-config=apps/v1=false", "remove apps/v1=false from --runtime-config"),
            ("insecure-port=8080", "has no port without TLS: remove --insecure-port"),
            (
                "audit-log-path l --etcd-servers e --audit-policy-file=p",
                "has no audit log: remove --audit-log-path and",
            ),
        ] {
            let error = split(&format!("kontiki serve --{flag}")).unwrap_err();
            assert!(error.contains(told), "{flag}: {error}");
        }
    }

    #[test]
    fn every_flag_of_kube_apiserver_is_known() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/kubernetes-1.36/kube-apiserver-flags.txt");
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("skipped: {path} is not here");
            return;
        };
        let mut command = super::super::Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        for own in serve.get_arguments().filter_map(|argument| argument.get_long()) {
            assert_eq!(judge(own, "x"), None, "--{own}");
        }
        for line in text.lines() {
            let gate = line.trim().strip_prefix("kube:").and_then(|gate| gate.split_once('='));
            if let Some((gate, rest)) = gate {
                assert_eq!(gates::ON.contains(&gate), rest.contains("default=true"), "{gate}");
            }
            let Some((_, flag)) = line.split_once("--").filter(|(before, _)| before.len() < 12) else { continue };
            let mut words = flag.split([' ', '[', '=']);
            let flag = words.next().unwrap();
            let own = serve.get_arguments().any(|argument| argument.get_long() == Some(flag));
            assert!(own || judge(flag, "x").is_some() || matches!(flag, "help" | "version"), "--{flag}");
            // What follows two spaces is what it does.
            let switch = words.next() == Some("");
            let listed = HARMLESS.iter().any(|(name, ..)| *name == flag) || DEPENDS.iter().any(|row| row.0 == flag);
            assert!(!listed || (takes(flag) == Switch) == switch, "--{flag}");
        }
    }
}
