//! Whether a CEL expression in an object compiles: its syntax, the names it uses, the type it comes to.
//!
//! The parser is the `cel` crate's, whose grammar and messages are those of cel-go. The checks after it follow cel-go's
//! where a type is certain; where it isn't known here, anything goes, and evaluation decides.

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo};
use cel::parser::Parser;

use crate::field::{Errors, Path};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    /// Not worked out here.
    Unknown,
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    /// A list, a map, a type value or anything else that has no name of its own here.
    Other,
    /// An empty list.
    Empty,
    /// What mutating policies make: the fields to apply, one JSON patch, a list of them.
    Object,
    Patch,
    Patches,
    Record(&'static [(&'static str, Type)]),
    /// The composed variables of a policy.
    Variables,
}

impl Type {
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Null => "null_type",
            Type::Dyn => "dyn",
            Type::Empty => "list(dyn)",
            Type::Object => "Object",
            Type::Patch => "JSONPatch",
            Type::Patches => "list(JSONPatch)",
            Type::Unknown | Type::Other | Type::Record(_) | Type::Variables => return None,
        })
    }

    fn is_basic(self) -> bool {
        self.is_number() || matches!(self, Type::Bool | Type::String | Type::Bytes)
    }

    fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double)
    }
}

/// What an expression must come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Output {
    Any,
    Bool,
    String,
    StringOrNull,
    Object,
    Patches,
    /// Whether a device is wanted.
    Selected,
    /// Whether a custom resource keeps a rule of its schema, and what to say if not.
    Rule,
    RuleMessage,
}

impl Output {
    fn wrong(self, found: Type) -> Option<String> {
        let (fits, wanted): (&[Type], _) = match self {
            Output::Any => return None,
            Output::Bool | Output::Selected | Output::Rule => (&[Type::Bool], "bool"),
            Output::String | Output::RuleMessage => (&[Type::String], "string"),
            Output::StringOrNull => (&[Type::String, Type::Null], "one of [string null_type]"),
            Output::Object => (&[Type::Object], "Object"),
            Output::Patches => (&[Type::Patches], "list(JSONPatch)"),
        };
        let name = found.name().filter(|_| !fits.contains(&found))?;
        Some(match self {
            Output::StringOrNull => format!("must evaluate to {wanted}"),
            Output::Rule => "cel expression must evaluate to a bool".to_owned(),
            Output::RuleMessage => "messageExpression must evaluate to a string".to_owned(),
            Output::Selected => format!("must evaluate to {wanted} or the unknown type, not {name}"),
            _ => format!("must evaluate to {wanted} but got {name}"),
        })
    }
}

const KIND: Type = Type::Record(&[("group", Type::String), ("version", Type::String), ("kind", Type::String)]);
const RESOURCE: Type = Type::Record(&[("group", Type::String), ("version", Type::String), ("resource", Type::String)]);

const REQUEST: Type = Type::Record(&[
    ("kind", KIND),
    ("resource", RESOURCE),
    ("subResource", Type::String),
    ("requestKind", KIND),
    ("requestResource", RESOURCE),
    ("requestSubResource", Type::String),
    ("name", Type::String),
    ("namespace", Type::String),
    ("operation", Type::String),
    (
        "userInfo",
        Type::Record(&[
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::Unknown),
            ("extra", Type::Unknown),
        ]),
    ),
    ("dryRun", Type::Bool),
    ("options", Type::Dyn),
]);

const NAMESPACE: Type = Type::Record(&[
    (
        "metadata",
        Type::Record(&[
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", Type::Unknown),
            ("annotations", Type::Unknown),
            ("UID", Type::String),
            ("creationTimestamp", Type::Unknown),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Unknown),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::Unknown),
        ]),
    ),
    ("spec", Type::Record(&[("finalizers", Type::Unknown)])),
    ("status", Type::Record(&[("phase", Type::String)])),
]);

const DEVICE: Type = Type::Record(&[
    ("driver", Type::String),
    ("attributes", Type::Unknown),
    ("capacity", Type::Unknown),
    ("allowMultipleAllocations", Type::Bool),
]);

/// The names that an expression may use.
pub struct Scope {
    names: Vec<(&'static str, Type)>,
    composed: Vec<(String, Type)>,
    /// Whether expressions may make objects and patches.
    makes_objects: bool,
}

impl Scope {
    fn admission(params: bool, authorizer: bool) -> Scope {
        let mut names =
            vec![("object", Type::Dyn), ("oldObject", Type::Dyn), ("request", REQUEST), ("namespaceObject", NAMESPACE)];
        if params {
            names.push(("params", Type::Dyn));
        }
        if authorizer {
            names.push(("authorizer", Type::Unknown));
        }
        Scope { names, composed: Vec::new(), makes_objects: false }
    }

    /// Of a match condition.
    pub fn condition(params: bool) -> Scope {
        Scope::admission(params, true)
    }

    /// Of a policy's own expressions; `composed`: it has variables.
    pub fn policy(params: bool, authorizer: bool, composed: bool) -> Scope {
        let mut scope = Scope::admission(params, authorizer);
        if composed {
            scope.names.push(("variables", Type::Variables));
        }
        scope
    }

    /// The same for a policy that changes objects.
    pub fn mutating_policy(params: bool, composed: bool) -> Scope {
        Scope { makes_objects: true, ..Scope::policy(params, true, composed) }
    }

    /// With what another scope has declared.
    pub fn with_variables_of(mut self, other: &Scope) -> Scope {
        self.composed.clone_from(&other.composed);
        self
    }

    /// Of a rule in the schema of a custom resource, whose types are not worked out here.
    pub fn schema_rule() -> Scope {
        let names = vec![("self", Type::Unknown), ("oldSelf", Type::Unknown)];
        Scope { names, composed: Vec::new(), makes_objects: false }
    }

    /// Of what selects devices.
    pub fn device() -> Scope {
        Scope { names: vec![("device", DEVICE)], composed: Vec::new(), makes_objects: false }
    }

    /// Declares a variable of a policy for what comes after it.
    pub fn declare(&mut self, name: &str, of: Type) {
        self.composed.push((name.to_owned(), of));
    }
}

/// What keeps an expression from compiling, or from coming to what it must come to.
pub fn problem(expression: &str, scope: &Scope, output: Output) -> Option<String> {
    match compile(expression, scope) {
        Err(messages) if output == Output::RuleMessage => {
            Some(format!("messageExpression compilation failed: {}", messages.join("\n")))
        }
        Err(messages) => Some(format!("compilation failed: {}", messages.join("\n"))),
        Ok(found) => output.wrong(found),
    }
}

/// Whether an expression that compiles uses a name.
pub fn uses(expression: &str, name: &str) -> bool {
    cel::Program::compile(expression).is_ok_and(|program| program.references().has_variable(name))
}

/// Compiles an expression; what is wrong with it becomes an error of the field. Says what type it has.
pub fn check(expression: &str, scope: &Scope, output: Output, path: &Path<'_>, errors: &mut Errors) -> Type {
    let found = compile(expression, scope);
    let problem = match &found {
        Err(messages) => Some(format!("compilation failed: {}", messages.join("\n"))),
        Ok(found) => output.wrong(*found),
    };
    if let Some(message) = problem {
        errors.invalid(path, expression, message);
    }
    found.unwrap_or(Type::Unknown)
}

fn compile(expression: &str, scope: &Scope) -> Result<Type, Vec<String>> {
    let parser = Parser::new().enable_optional_syntax(true);
    let (root, source) = parser.parse_with_source_info(expression).map_err(|failed| {
        // In an empty text, cel-go places the end before the first column.
        let least = isize::from(!expression.is_empty());
        let at = |(line, column): (isize, isize)| (line.max(1) as usize, (column - 1 + least).max(0) as usize);
        failed.errors.iter().map(|error| located(expression, at(error.pos), &error.msg)).collect::<Vec<_>>()
    })?;
    let mut checker = Checker { scope, source: &source, expression, locals: Vec::new(), errors: Vec::new() };
    let found = checker.type_of(&root);
    if checker.errors.is_empty() {
        return Ok(found);
    }
    checker.errors.sort_by_key(|(at, _)| *at);
    Err(checker.errors.iter().map(|(at, message)| located(expression, *at, message)).collect())
}

/// An error with the line that it is in, and a pointer to the column.
fn located(expression: &str, (line, column): (usize, usize), message: &str) -> String {
    let mut text = format!("ERROR: <input>:{line}:{column}: {message}");
    if let Some(snippet) = expression.split('\n').nth(line - 1).filter(|snippet| !snippet.is_empty()) {
        text.push_str(&format!("\n | {snippet}\n | {}^", ".".repeat(column.saturating_sub(1))));
    }
    text
}

struct Checker<'a> {
    scope: &'a Scope,
    source: &'a SourceInfo,
    expression: &'a str,
    /// The variables of the comprehensions around.
    locals: Vec<&'a str>,
    errors: Vec<((usize, usize), String)>,
}

/// Functions and methods of the standard environment and of Kubernetes' libraries, with what they return.
#[rustfmt::skip]
const FUNCTIONS: &[(Type, &[&str])] = &[
    (Type::Bool, &[
        "contains", "endsWith", "startsWith", "matches", "bool", "isSorted", "isURL", "isQuantity", "isInteger",
        "isGreaterThan", "isLessThan", "isIP", "isUnspecified", "isLoopback", "isLinkLocalMulticast",
        "isLinkLocalUnicast", "isGlobalUnicast", "isCIDR", "containsIP", "containsCIDR", "isSemver", "allowed",
        "errored", "hasValue", "sets.contains", "sets.equivalent", "sets.intersects", "ip.isCanonical", "includes",
    ]),
    (Type::Int, &[
        "int", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
        "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "size", "asInteger", "compareTo", "sign", "major",
        "minor", "patch", "prefixLength", "family", "indexOf", "lastIndexOf",
    ]),
    (Type::Uint, &["uint"]),
    (Type::Double, &["double", "asApproximateFloat"]),
    (Type::String, &[
        "string", "charAt", "join", "lowerAscii", "upperAscii", "replace", "substring", "trim", "format", "find",
        "strings.quote", "getScheme", "getHost", "getHostname", "getPort", "getEscapedPath", "reason", "error",
        "jsonpatch.escapeKey",
    ]),
    (Type::Bytes, &["bytes"]),
    (Type::Dyn, &["dyn"]),
    (Type::Unknown, &[
        "duration", "timestamp", "type", "split", "sum", "min", "max", "findAll", "url", "getQuery", "quantity",
        "add", "sub", "ip", "cidr", "masked", "semver", "validate", "path", "group", "serviceAccount", "resource",
        "subresource", "namespace", "name", "check", "fieldSelector", "labelSelector", "or", "orValue", "value",
        "optional.of", "optional.none", "optional.ofNonZeroValue", "format.named", "reverse", "flatten", "distinct",
        "sort", "slice", "lists.range", "first", "last", "unwrapOpt", "optional.unwrap",
    ]),
];

/// Macros that the parser leaves as they are: names in them may be their own.
const MACROS: &[&str] = &[
    "optMap",
    "optFlatMap",
    "bind",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "existsOne",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
    "sortBy",
];

/// Names of types, which are values too.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint", "google"];

fn function(name: &str) -> Option<Type> {
    FUNCTIONS.iter().find(|(_, names)| names.contains(&name)).map(|(of, _)| *of)
}

impl<'a> Checker<'a> {
    fn type_of(&mut self, node: &'a IdedExpr) -> Type {
        match &node.expr {
            Expr::Unspecified => Type::Unknown,
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            },
            Expr::Ident(name) => self.name(node.id, name),
            Expr::Select(select) => self.select(node.id, select),
            Expr::Call(call) => self.call(node.id, call),
            Expr::List(list) => {
                let types: Vec<Type> = list.elements.iter().map(|element| self.type_of(element)).collect();
                match types.as_slice() {
                    [] => Type::Empty,
                    [first, rest @ ..] if *first == Type::Patch && rest.iter().all(|of| of == first) => Type::Patches,
                    _ => Type::Other,
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr);
                }
                Type::Other
            }
            Expr::Struct(made) => {
                for entry in &made.entries {
                    self.entry(&entry.expr);
                }
                match made.type_name.as_str() {
                    name if !self.scope.makes_objects => self.undeclared(node.id, name),
                    "Object" => Type::Object,
                    "JSONPatch" => Type::Patch,
                    name if name.starts_with("Object.") => Type::Other,
                    name => self.undeclared(node.id, name),
                }
            }
            Expr::Comprehension(each) => {
                self.type_of(&each.iter_range);
                self.type_of(&each.accu_init);
                let depth = self.locals.len();
                self.locals.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
                self.locals.extend(each.iter_var2.as_deref());
                self.type_of(&each.loop_cond);
                let step = self.type_of(&each.loop_step);
                self.type_of(&each.result);
                self.locals.truncate(depth);
                // `all` and `exists` accumulate a truth; others build something.
                if matches!(&each.accu_init.expr, Expr::Literal(LiteralValue::Boolean(_))) { Type::Bool } else { step }
            }
        }
    }

    fn entry(&mut self, entry: &'a EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => {
                self.type_of(&field.value);
            }
            EntryExpr::MapEntry(entry) => {
                self.type_of(&entry.key);
                self.type_of(&entry.value);
            }
        }
    }

    fn name(&mut self, id: u64, name: &str) -> Type {
        if self.locals.contains(&name) {
            return Type::Unknown;
        }
        if let Some((_, of)) = self.scope.names.iter().find(|(known, _)| *known == name) {
            return *of;
        }
        if TYPES.contains(&name) {
            return Type::Other;
        }
        self.undeclared(id, name)
    }

    fn select(&mut self, id: u64, select: &'a SelectExpr) -> Type {
        let operand = self.type_of(&select.operand);
        let field = select.field.as_str();
        let found = match operand {
            Type::Record(fields) => fields.iter().find(|(name, _)| *name == field).map(|(_, of)| *of),
            Type::Variables => self.scope.composed.iter().rev().find(|(name, _)| name == field).map(|(_, of)| *of),
            Type::Dyn => Some(Type::Dyn),
            Type::Unknown | Type::Other | Type::Null => Some(Type::Unknown),
            _ => {
                let name = operand.name().unwrap_or_default();
                return self.error(id, format!("type '{name}' does not support field selection"));
            }
        };
        match found {
            Some(_) if select.test => Type::Bool,
            Some(of) => of,
            None => self.error(id, format!("undefined field '{field}'")),
        }
    }

    fn call(&mut self, id: u64, call: &'a CallExpr) -> Type {
        let name = call.func_name.as_str();
        if MACROS.contains(&name) {
            return Type::Unknown;
        }
        // A function of a namespace looks like a method of a variable.
        if let Some(Expr::Ident(space)) = call.target.as_ref().map(|target| &target.expr)
            && !self.locals.contains(&space.as_str())
            && self.scope.names.iter().all(|(known, _)| known != space)
        {
            let full = format!("{space}.{name}");
            let found = function(&full).or((space == "format").then_some(Type::Unknown));
            self.arguments(call);
            return match found {
                Some(of) => of,
                None => self.undeclared(id, space),
            };
        }
        if let Some(target) = &call.target {
            self.type_of(target);
        }
        let types = self.arguments(call);
        match (name, types.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR | op::LOGICAL_NOT | op::IN, _) => Type::Bool,
            (op::NOT_STRICTLY_FALSE, _) => Type::Bool,
            (op::EQUALS | op::NOT_EQUALS, [a, b]) => self.same(id, name, *a, *b, Type::Bool),
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
                if a.is_number() && b.is_number() { Type::Bool } else { self.same(id, name, *a, *b, Type::Bool) }
            }
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => match (*a, *b) {
                (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
                (a, b) => self.same(id, name, a, b, a),
            },
            (op::NEGATE, [a]) => *a,
            (op::CONDITIONAL, [_, a, b]) => {
                if a == b {
                    *a
                } else {
                    Type::Unknown
                }
            }
            (op::INDEX, [Type::Dyn, _]) => Type::Dyn,
            (op::INDEX | op::OPT_INDEX | op::OPT_SELECT, _) => Type::Unknown,
            _ if name.starts_with('@') => Type::Unknown,
            _ => match function(name) {
                Some(of) => of,
                None => self.undeclared(id, name),
            },
        }
    }

    fn arguments(&mut self, call: &'a CallExpr) -> Vec<Type> {
        call.args.iter().map(|argument| self.type_of(argument)).collect()
    }

    /// Operands that must be of one type, as far as they have one.
    fn same(&mut self, id: u64, operator: &str, a: Type, b: Type, result: Type) -> Type {
        match (a.name().filter(|_| a.is_basic()), b.name().filter(|_| b.is_basic())) {
            (Some(left), Some(right)) if left != right => {
                let message = format!("found no matching overload for '{operator}' applied to '({left}, {right})'");
                self.error(id, message)
            }
            (Some(_), Some(_)) => result,
            _ if result == Type::Bool => Type::Bool,
            _ => Type::Unknown,
        }
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.error(id, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn error(&mut self, id: u64, message: String) -> Type {
        let offset = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: String = self.expression.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        self.errors.push(((line, column), message));
        Type::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(expression: &str, scope: &Scope, output: Output) -> Vec<String> {
        let mut errors = Errors::default();
        check(expression, scope, output, &Path::new("e"), &mut errors);
        errors.0.into_iter().map(|error| error.detail).collect()
    }

    #[test]
    fn errors_read_as_cel_gos() {
        let scope = Scope::policy(true, true, true);
        let of = |expression: &str| failures(expression, &scope, Output::Bool);
        assert_eq!(
            of("variables.reps <= int(params.data.max)"),
            [
                "compilation failed: ERROR: <input>:1:10: undefined field 'reps'\n | variables.reps <= int(params.data.max)\n | .........^"
            ]
        );
        assert_eq!(
            of("truex"),
            [
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'truex' (in container '')\n | truex\n | ^"
            ]
        );
        assert_eq!(
            of("request.userInfo.username != \"x\"x"),
            [
                "compilation failed: ERROR: <input>:1:33: Syntax error: extraneous input 'x' expecting <EOF>\n | request.userInfo.username != \"x\"x\n | ................................^"
            ]
        );
        assert_eq!(
            of(""),
            [
                "compilation failed: ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
            ]
        );
    }

    #[test]
    fn types_are_checked_where_they_are_certain() {
        let scope = Scope::condition(false);
        let of = |expression: &str| failures(expression, &scope, Output::Bool);
        assert_eq!(of("1 + 1"), ["must evaluate to bool but got int"]);
        assert!(of("1 + 'a' == 2")[0].contains("found no matching overload for '_+_' applied to '(int, string)'"));
        assert!(of("request.nope == ''")[0].contains("1:8: undefined field 'nope'"));
        for good in [
            "object.spec.replicas > 0",
            "object.spec.containers.all(c, c.name.startsWith('a') && size(c.name) < 5)",
            "has(object.metadata.labels) && object.metadata.labels.exists(k, k == 'x')",
            "authorizer.group('').resource('pods').check('get').allowed()",
            "type(object.x) == string || object.?spec.?x.orValue('') == 'a'",
            "[1, 2].map(x, x * 2).filter(x, x > 2).size() == 1",
        ] {
            assert_eq!(of(good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(failures("device.attributes['a'].b == 'x'", &Scope::device(), Output::Bool), Vec::<String>::new());
    }
}
