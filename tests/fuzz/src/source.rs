//! Objects out of bytes: the schema says what may stand where, the bytes choose. What a kind's rules look at is far from
//! anything that random text would reach.

use kontiki::schema::{Node, Type};
use serde_json::{Map, Value, json};

/// Deep enough for what every rule looks at.
const DEPTH: usize = 14;
const TEXTS: &[&str] = &[
    "",
    "a",
    "web",
    "a.example.com",
    "a.example.com/b",
    "A_b",
    "-",
    "..",
    "/",
    "/tmp/x",
    "a/../b",
    "é",
    "x y",
    "%",
    "10.0.0.1",
    "10.0.0.0/24",
    "::1",
    "fd00::/64",
    "0x1f",
    "80",
    "http",
    "TCP",
    "UDP",
    "*",
    "*/5 * * * *",
    "@daily",
    "TZ=UTC * * * * *",
    "*.example.com",
    "100%",
    "25%",
    "v1",
    "apps/v1",
    "kubernetes.io/tls",
    "kubernetes.io/hostname",
    "Yg==",
    "true",
    "self == 1",
    "object.a in ['b']",
    "2026-01-02T03:04:05Z",
    "1h",
    "get",
    "Pod",
    "system:masters",
    "localhost/x",
    "$(A)",
    "\u{0}",
    "\n",
    "None",
    "node.kubernetes.io/not-ready",
    "hugepages-2Mi",
    "cpu",
    "memory",
    "requests.nvidia.com/gpu",
    "pods",
    "https://example.com:443/a?b#c",
    "file:///a",
    "user@example.com",
    "sha256:abc",
    "rO+/=",
    "12345678-1234-1234-1234-123456789abc",
];
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    7,
    10,
    53,
    80,
    100,
    255,
    256,
    443,
    1023,
    30000,
    32767,
    65535,
    65536,
    86400,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];
const QUANTITIES: &[&str] = &[
    "0",
    "1",
    "-1",
    "100m",
    "1Gi",
    "1.5",
    "1n",
    "1e3",
    "9E",
    "-5Ki",
    "0.0000000001",
    "1k",
    "8Ei",
    "12345678901234567890",
];
const TIMES: &[&str] =
    &["2026-01-02T03:04:05Z", "0001-01-01T00:00:00Z", "2026-01-02T03:04:05.123456Z", "9999-12-31T23:59:59Z"];

pub struct Source<'b>(pub &'b [u8]);

impl Source<'_> {
    pub fn byte(&mut self) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    pub fn pick<'t, T: ?Sized>(&mut self, of: &'t [&'t T]) -> &'t T {
        of[self.byte() % of.len()]
    }

    fn text(&mut self) -> String {
        match self.byte() {
            choice if choice < TEXTS.len() => TEXTS[choice].to_owned(),
            choice if choice < 200 => TEXTS[choice % 4].to_owned(),
            choice if choice < 210 => "x".repeat(choice),
            choice if choice < 220 => format!("{}{}", self.pick(TEXTS), self.pick(TEXTS)),
            choice => {
                let (text, rest) = self.0.split_at(self.0.len().min(choice - 220));
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }
        }
    }

    fn number(&mut self) -> i64 {
        match self.byte() {
            choice if choice < 128 => NUMBERS[choice % NUMBERS.len()],
            choice => (choice as i64 - 128) * (1 + self.byte() as i64),
        }
    }

    pub fn json(&mut self, depth: usize) -> Value {
        match self.byte() % if depth > 4 { 5 } else { 8 } {
            0 => Value::Null,
            1 => json!(self.byte() & 1 == 1),
            2 => json!(self.number()),
            3 => json!(self.number() as f64 / 8.0),
            4 => json!(self.text()),
            5 => (0..self.byte() % 4).map(|_| self.json(depth + 1)).collect(),
            _ => (0..self.byte() % 4).map(|_| (self.text(), self.json(depth + 1))).collect::<Map<_, _>>().into(),
        }
    }

    /// A value of the type, mostly. Ends soon after the bytes do.
    pub fn value(&mut self, node: Node<'_>, depth: usize) -> Value {
        match node.ty() {
            Type::Struct(_) | Type::SchemaOrBool(_) | Type::SchemaOrArray(_) | Type::SchemaOrStrings(_) => {
                let mut map = Map::new();
                let known = match node.ty() {
                    Type::SchemaOrBool(id) | Type::SchemaOrArray(id) | Type::SchemaOrStrings(id) => {
                        Some(node.struct_at(id))
                    }
                    _ => node.as_struct(),
                };
                for field in known.map(|known| known.fields()).unwrap_or_default() {
                    let of = node.of_field(field);
                    // Few of the many, or no object would ever end.
                    let chance = if of.required() { 230 } else { 50 };
                    if depth < DEPTH && !self.0.is_empty() && self.byte() < chance {
                        map.insert(field.name.to_string(), self.value(of, depth + 1));
                    }
                }
                Value::Object(map)
            }
            Type::List(of) => (0..self.byte() % 4).map(|_| self.value(node.at(of), depth + 1)).collect(),
            Type::Map(of) => (0..self.byte() % 4)
                .map(|_| (self.text(), self.value(node.at(of), depth + 1)))
                .collect::<Map<_, _>>()
                .into(),
            Type::String => match node.values() {
                [] => json!(self.text()),
                values => match self.byte() {
                    choice if choice < 230 => json!(values[choice % values.len()]),
                    _ => json!(self.text()),
                },
            },
            Type::Int32 | Type::Int64 => json!(self.number()),
            Type::Bool => json!(self.byte() & 1 == 1),
            Type::Float => json!(self.number() as f64 / 8.0),
            Type::Bytes => json!(self.pick(&["", "Yg==", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==", "!"])),
            Type::Quantity => json!(self.pick(QUANTITIES)),
            Type::IntOrString => match self.byte() & 1 {
                0 => json!(self.number()),
                _ => json!(self.text()),
            },
            Type::Time | Type::MicroTime => json!(self.pick(TIMES)),
            Type::Duration => json!(self.pick(&["1h", "0s", "-1ns", "1x"])),
            Type::FieldsV1 => {
                json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"k:{\"name\":\"a\"}": {}}})
            }
            Type::RawExtension => json!({"apiVersion": "v1", "kind": "X", "a": self.json(0)}),
            Type::Json => self.json(0),
        }
    }
}
