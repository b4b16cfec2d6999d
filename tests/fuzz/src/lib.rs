//! What reads bytes that anybody may have sent, as a table of targets: a target takes any bytes and must neither panic
//! nor break its own promise, which is mostly that what it writes reads as the same value. `tests/short.rs` runs each for
//! a moment; `tests/fuzz/run` runs one for as long as one likes, guided by coverage.
#![forbid(unsafe_code)]

mod api;
mod connection;
mod source;
mod store;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that get far, to begin with.
    pub seeds: &'static [&'static str],
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: &'static [&'static str]) -> Target {
    Target { name, run, seeds }
}

const OBJECTS: &[&str] = &[
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"100m"}}}]}}"#,
    r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","creationTimestamp":"2026-01-02T03:04:05Z"},"data":{"a":"Yg=="},"type":"Opaque"}"#,
    r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":3,"minReplicas":null,"x":1.5e3}}"#,
];
const YAML: &[&str] =
    &["a: &x [1, 2.5, ~, 'q']\nb: {<<: *x, \"c\": !!str 1}\n---\n- |\n  text\n", "kind: Pod\nmetadata: {name: a}\n"];
const PATCHES: &[&str] = &[
    "\0[{\"op\":\"add\",\"path\":\"/spec/containers/-\",\"value\":{\"name\":\"b\"}},{\"op\":\"test\",\"path\":\"/a~1b\"}]",
    "\x01{\"spec\":{\"containers\":null,\"nodeName\":\"n\"},\"metadata\":{\"labels\":{\"a\":null}}}",
    "\x02{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"c\"}],\"containers\":[{\"name\":\"c\",\"$patch\":\"delete\"}],\"$retainKeys\":[\"containers\"]}}",
    "\x03{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"j\"}]}}",
];
const EXPRESSIONS: &[&str] = &[
    "device.attributes[\"a.example\"].model == 'x' && device.capacity.all(k, k.size() > 1)",
    "[1, 2u, 3.5, b'x', null].map(x, {x: [x]}).exists_one(y, has(y.a) ? !y : -y in [1])",
];

pub const TARGETS: &[Target] = &[
    target("json", api::json, OBJECTS),
    target("untyped-json", api::untyped_json, OBJECTS),
    target("yaml", api::yaml, YAML),
    target("protobuf", api::protobuf, &["\0\x0a\x03\x0a\x01a\x12\x06\x12\x04\x0a\x02cc"]),
    target("object", api::object, OBJECTS),
    target("patch", api::patch, PATCHES),
    target("generated-patch", api::generated_patch, OBJECTS),
    target("label-selector", api::label_selector, &["a=b,c!=d, !e ,f in (g,h),i notin (),j>1"]),
    target("field-selector", api::field_selector, &["metadata.name=a\\,b,spec.x!=\\\\,c=="]),
    target("quantity", api::quantity, &["1.5Gi", "-100m", "1e-9", "0.000000001E", "12345678901234567890"]),
    target("time", api::time, &["2026-01-02T03:04:05.123456Z", "1969-12-31T23:59:60+14:00", "1h2m3.5s"]),
    target("expression", api::expression, EXPRESSIONS),
    target(
        "request",
        api::request,
        &["GET /apis/apps/v1/namespaces/n/deployments/d/scale?watch=1&labelSelector=a%3Db", "POST /api/v1/../x//y?%zz"],
    ),
    target("continue", api::continue_token, &["eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiYSJ9"]),
    target(
        "farewell",
        connection::farewell,
        &[
            "\x01\x77\x31\0\0\x03\0\0\0\0\0\x01two\0\0\x08\x06\x01\0\0\0\0farewell\0\0\x08\x06\x01\0\0\0\0farewell",
            "\0\x7f\0\0\x20\0\0\0\0\0\x01................................\0\0\x08\x06\x01\0\0\0\0farewell\0\0\0\x04\0\0\0\0\0",
            "\0\x09\0\0\x01\0\0\0\0\0\x01.\0\0\x08\x06\x01\0\0\0\0farewelk\0\0\x08\x06\x01\0\0\0\0farewell",
        ],
    ),
    target(
        "command",
        store::command,
        &["\x01\x02\x03\x01\0\x01\0\x03a/b\x01\0\x03a/b\x02{}\x01\x01\0", "\x01\x01\x01\0\x01\x07"],
    ),
    target("stored-row", store::stored_row, &["\x01\x01\0\0\x02{}\x03a/b\0\x01\x01\x01\0\0\0\0\x01x\0"]),
    target("snapshot", store::snapshot, &["\0\0\x01\x01\x03\x02"]),
    target("archive", store::archive, &["\0\x09\x01", "\x01\0\0\0\x04\x03\0"]),
    target(
        "log-row",
        kontiki_raft::fuzz::row,
        &["\x01\x02\x03\x01\x04\x01\x01\x01\x01\x01\x07", "\x01\x02\x03\x02\x01\x01\x01\x01\x01\x01n\x01a"],
    ),
    target("membership", kontiki_raft::fuzz::membership, &["\x01\x01\x02\x03\x01\x01\x01\x01\x01\x01n\x01a"]),
    target(
        "peer-message",
        kontiki_raft::fuzz::message,
        &["\x01\x02\x01\0\x01\x01\x02\x03\0\x01\x01\x02\x03\x01\x02\x01\0"],
    ),
];
