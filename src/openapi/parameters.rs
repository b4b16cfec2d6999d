//! The parameters of operations.

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    kind: &'static str,
    description: &'static str,
    place: &'static str,
}

impl Parameter {
    pub(super) fn to_value(self) -> Value {
        if self.place == "path" {
            return in_path(self.name, self.description);
        }
        json!({
            "name": self.name,
            "in": self.place,
            "description": self.description,
            "schema": {"type": self.kind, "uniqueItems": true},
        })
    }
}

pub(super) fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": description,
        "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter { name, kind, description, place: "query" }
}

pub(super) const PRETTY: Parameter = query(
    "pretty",
    "string",
    "Whether the answer is indented for people. Browsers, curl and wget get that by default.",
);
pub(super) const FORCE: Parameter = query(
    "force",
    "boolean",
    "For apply: take over the fields of other managers rather than answer with a conflict. Of no use to other patches.",
);
pub(super) const PROXY_PATH: Parameter =
    Parameter { name: "path", kind: "string", description: "path to the resource", place: "path" };

const CONTINUE: Parameter = query(
    "continue",
    "string",
    "Where the next page of a list starts: the token that came with the page before. The other parameters must be the same. A token that has become too old is answered with 410 and one that goes on from the newest state.",
);
const DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "With `All`, the request goes all the way through admission and validation, but nothing is stored.",
);
const FIELD_SELECTOR: Parameter =
    query("fieldSelector", "string", "Restricts the objects by their fields. Defaults to everything.");
const GRACE_PERIOD: Parameter = query(
    "gracePeriodSeconds",
    "integer",
    "How many seconds the object has before it is deleted. Zero deletes at once. Defaults to what the object says.",
);
const IGNORE_STORE_READ_ERROR: Parameter = query(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Deletes an object that can't be read from the store, without regard to finalizers and preconditions. This may break what relies on its orderly end.",
);
const LABEL_SELECTOR: Parameter =
    query("labelSelector", "string", "Restricts the objects by their labels. Defaults to everything.");
const LIMIT: Parameter = query(
    "limit",
    "integer",
    "The most objects that one answer has. Where there are more, its metadata has a `continue` token; all pages together show the state of the first one.",
);
const ORPHAN_DEPENDENTS: Parameter =
    query("orphanDependents", "boolean", "Deprecated: use propagationPolicy. Whether dependents are left alone.");
const PROPAGATION_POLICY: Parameter = query(
    "propagationPolicy",
    "string",
    "What happens to dependents: `Orphan` leaves them, `Background` deletes them afterwards, `Foreground` before the object itself.",
);
const RESOURCE_VERSION: Parameter = query(
    "resourceVersion",
    "string",
    "Which state the request may be answered from. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.",
);
const RESOURCE_VERSION_MATCH: Parameter = query(
    "resourceVersionMatch",
    "string",
    "How resourceVersion is applied to a list: `Exact` or `NotOlderThan`. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.",
);
const SEND_INITIAL_EVENTS: Parameter = query(
    "sendInitialEvents",
    "boolean",
    "Lets a watch begin with the objects that are there, as if they had just been added, and a bookmark behind them. Needs resourceVersionMatch=NotOlderThan.",
);
const SHARD_SELECTOR: Parameter = query(
    "shardSelector",
    "string",
    "Restricts the objects to ranges of the hash of a field, as shardRange() tells them.",
);
const TIMEOUT: Parameter =
    query("timeoutSeconds", "integer", "Limits how long the list or watch takes, whatever happens in it.");

pub(super) static LIST: [Parameter; 11] = [
    query("allowWatchBookmarks", "boolean", "Asks for BOOKMARK events in a watch, which tell how far it has come."),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT,
    query("watch", "boolean", "Sends the changes of the objects as they happen, from resourceVersion on."),
];

pub(super) static WRITE: [Parameter; 3] = [
    DRY_RUN,
    query("fieldManager", "string", "Who makes the change: at most 128 printable characters. Required for apply."),
    query(
        "fieldValidation",
        "string",
        "What unknown and repeated fields lead to: nothing (`Ignore`), warnings (`Warn`, the default), or an error (`Strict`).",
    ),
];

pub(super) static DELETE: [Parameter; 5] =
    [DRY_RUN, GRACE_PERIOD, IGNORE_STORE_READ_ERROR, ORPHAN_DEPENDENTS, PROPAGATION_POLICY];

pub(super) static DELETE_COLLECTION: [Parameter; 14] = [
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE_PERIOD,
    IGNORE_STORE_READ_ERROR,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT,
];

const CONTAINER: Parameter = query("container", "string", "The container; may be left out where the pod has only one.");

const STDERR: Parameter = query("stderr", "boolean", "Whether standard error is sent back.");
const STDIN: Parameter = query("stdin", "boolean", "Whether standard input is sent to it.");
const STDOUT: Parameter = query("stdout", "boolean", "Whether standard output is sent back.");
const TTY: Parameter = query("tty", "boolean", "Whether it gets a terminal.");

pub(super) static LOG: [&Parameter; 9] = [
    &CONTAINER,
    &query("follow", "boolean", "Goes on with the log as it is written."),
    &query(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Takes the log even from a kubelet whose certificate can't be verified, and so from an impostor too.",
    ),
    &query("limitBytes", "integer", "The most bytes that are answered; the last line may be cut."),
    &query("previous", "boolean", "The log of the container that ran before this one."),
    &query("sinceSeconds", "integer", "Only lines of the last so many seconds."),
    &query("stream", "string", "`All`, `Stdout` or `Stderr`. Defaults to `All`."),
    &query("tailLines", "integer", "Only so many lines at the end."),
    &query("timestamps", "boolean", "Puts the time before each line."),
];

static ATTACH: [&Parameter; 5] = [&CONTAINER, &STDERR, &STDIN, &STDOUT, &TTY];
static EXEC: [&Parameter; 6] = [
    &query("command", "string", "The program and its arguments; no shell comes in between."),
    &CONTAINER,
    &STDERR,
    &STDIN,
    &STDOUT,
    &TTY,
];
static PORT_FORWARD: [&Parameter; 1] = [&query("ports", "integer", "The ports to forward; needed with WebSockets.")];
static PROXY: [&Parameter; 1] = [&query("path", "string", "The path of the request that is passed on.")];

/// What connections take, by the kind of their options; none for other kinds.
pub(super) fn connection(kind: &str) -> Option<&'static [&'static Parameter]> {
    Some(match kind {
        "PodAttachOptions" => &ATTACH,
        "PodExecOptions" => &EXEC,
        "PodPortForwardOptions" => &PORT_FORWARD,
        "NodeProxyOptions" | "PodProxyOptions" | "ServiceProxyOptions" => &PROXY,
        _ => return None,
    })
}
