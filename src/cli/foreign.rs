//! Flags of kube-apiserver that Kontiki hasn't got: those that can be left out without harm are set aside with a word
//! in the log; for the others the error says what they would ask for, and what to do.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

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
    ("allow-privileged", Switch, "privileged containers are always allowed"),
    ("contention-profiling", Switch, "there is no Go runtime to profile"),
    ("default-watch-cache-size", Value, "watches are served from the state itself"),
    ("delete-collection-workers", Value, "a collection is deleted in transactions"),
    ("enable-aggregator-routing", Switch, "there are no aggregated API servers yet"),
    ("enable-garbage-collector", Switch, "deletion always leaves dependents to the garbage collector"),
    ("enable-priority-and-fairness", Switch, "requests are limited in number, not queued"),
    ("endpoint-reconciler-type", Value, "endpoints always follow the replicas' leases"),
    ("goaway-chance", Value, "connections are not moved between replicas"),
    ("kubelet-certificate-authority", Value, "there are no connections to kubelets yet"),
    ("kubelet-client-certificate", Value, "there are no connections to kubelets yet"),
    ("kubelet-client-key", Value, "there are no connections to kubelets yet"),
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
    ("service-account-lookup", Switch, "service accounts are always looked up"),
    ("shutdown-send-retry-after", Switch, "a replica that stops finishes what it has begun"),
    ("storage-initialization-timeout", Value, "a replica is ready when it is"),
    ("storage-media-type", Value, "objects are stored as JSON"),
    ("vmodule", Value, "set RUST_LOG to log more of single modules"),
    ("watch-cache", Switch, "watches are served from the state itself"),
    ("watch-cache-sizes", Value, "watches are served from the state itself"),
];

/// Flags by how they begin, and what they ask for. Without it a server would do something else than it was told.
const MISSED: &[(&str, &str)] = &[
    ("admission-control", "the configuration of admission plugins"),
    ("aggregator-", "aggregated API servers"),
    ("allow-metric-labels", "limits on the labels of metrics"),
    ("audit-", "an audit log"),
    ("authentication-", "webhook authentication"),
    ("authorization-", "authorization by policy file, webhook or configuration file"),
    ("cert-dir", "that directory: --data-dir and --pki-dir say where certificates are"),
    ("coordinated-leadership-", "coordinated leader election"),
    ("cors-allowed-origins", "CORS"),
    ("debug-socket-path", "a socket for profiling"),
    ("default-not-ready-toleration-seconds", "other default tolerations than those of 300 seconds"),
    ("default-unreachable-toleration-seconds", "other default tolerations than those of 300 seconds"),
    ("disable-admission-plugins", "a choice of admission plugins"),
    ("disable-http2-serving", "a way to refuse HTTP/2"),
    ("disabled-metrics", "a choice of metrics"),
    ("egress-selector-config-file", "egress selection"),
    ("emulat", "the emulation of other versions"),
    ("enable-admission-plugins", "a choice of admission plugins"),
    ("enable-bootstrap-token-auth", "bootstrap tokens"),
    ("enable-logs-handler", "a path that serves logs"),
    ("encryption-provider-config", "encryption at rest"),
    ("feature-gates", "feature gates: it serves what is on by default"),
    ("kubernetes-service-node-port", "a node port for the kubernetes service"),
    ("log-", "that kind of log"),
    ("max-connection-bytes-per-sec", "limits on the bandwidth of connections"),
    ("min-compatibility-version", "compatibility with other versions"),
    ("oidc-", "OpenID Connect"),
    ("peer-advertise-", "that flag: --peer-address says where other replicas find this one"),
    ("peer-ca-file", "that flag: --pki-dir holds the peers' authority"),
    ("permit-", "shared sockets"),
    ("runtime-config", "a choice of APIs: it serves what is on by default"),
    ("send-retry-after-while-not-ready-once", "refusal of requests before it is ready"),
    ("service-account-jwks-uri", "another place for the key set"),
    ("service-account-signing-endpoint", "signing by another process"),
    ("show-hidden-metrics-for-version", "hidden metrics"),
    ("shutdown-watch-termination-grace-period", "a grace period for watches: they end when the replica stops"),
    ("strict-transport-security-directives", "HSTS"),
    ("tls-cipher-suites", "a choice of cipher suites: it speaks the strong ones"),
    ("tls-curve-preferences", "a choice of curves"),
    ("tls-sni-cert-key", "more than one serving certificate"),
    ("tracing-config-file", "tracing to a collector"),
];

/// Takes the harmless flags out of the arguments of `kontiki serve`; returns the rest, and what to say about them.
pub fn set_aside(arguments: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    let (mut rest, mut said) = (Vec::new(), Vec::new());
    let serving = arguments.get(1).is_some_and(|command| command == "serve");
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--")).filter(|_| serving);
        let (name, value) = flag.map_or(("", None), |flag| match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        });
        match HARMLESS.iter().find(|(harmless, ..)| *harmless == name) {
            Some((name, takes, why)) => {
                said.push(format!("--{name} has no effect: {why}"));
                if *takes == Value && value.is_none() {
                    arguments.next();
                }
            }
            None => rest.push(argument),
        }
    }
    (rest, said)
}

/// The error to show instead, where an unknown flag is one of kube-apiserver's.
pub fn explain(error: Error) -> Error {
    let flag = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => flag.trim_start_matches('-').to_owned(),
        _ => return error,
    };
    let why = if flag.starts_with("etcd-") || flag == "storage-backend" {
        "Kontiki's replicas are their own store and need no etcd".to_owned()
    } else {
        match MISSED.iter().find(|(start, _)| flag.starts_with(start)) {
            Some((_, what)) => format!("Kontiki {} has no {what}", crate::version::OWN),
            None => return error,
        }
    };
    let mut command = super::Cli::command();
    command.build();
    let serve = command.find_subcommand_mut("serve").expect("serve is a command");
    serve.error(ErrorKind::UnknownArgument, format!("{why}: remove --{flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (Vec<String>, Vec<String>) {
        let (rest, said) = set_aside(line.split(' ').map(OsString::from).collect());
        (rest.into_iter().map(|argument| argument.into_string().unwrap()).collect(), said)
    }

    #[test]
    fn harmless_flags_go_with_their_values() {
        let (rest, said) =
            split("kontiki serve --profiling=false --data-dir d --kubelet-timeout 5s --watch-cache --secure-port 1");
        assert_eq!(rest, ["kontiki", "serve", "--data-dir", "d", "--secure-port", "1"]);
        assert_eq!(said.len(), 3);
        assert_eq!(split("kontiki status --profiling").0.len(), 3);
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
        for line in text.lines() {
            let Some((_, flag)) = line.split_once("--").filter(|(before, _)| before.len() < 12) else { continue };
            let flag = flag.split([' ', '[', '=']).next().unwrap();
            let known = serve.get_arguments().any(|argument| argument.get_long() == Some(flag))
                || HARMLESS.iter().any(|(name, ..)| *name == flag)
                || MISSED.iter().any(|(start, _)| flag.starts_with(start))
                || flag.starts_with("etcd-")
                || matches!(flag, "storage-backend" | "help" | "version");
            assert!(known, "--{flag}");
        }
    }
}
