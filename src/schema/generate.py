#!/usr/bin/env python3
"""Writes builtin.txt, the table of the built-in kinds' types.

    generate.py KUBERNETES GO > builtin.txt

KUBERNETES is a directory with `openapi-v3/*.json` of a running kube-apiserver. GO is a directory with check-outs of
the same version of the Go modules `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`.

The Go types tell names, order, protobuf numbers, what is a pointer and what is left out when empty; the published
OpenAPI tells list types, enums, defaults and what is required. The format is described in table.rs, which reads it.
"""
import glob
import json
import os
import re
import sys

# Directory of a Go package -> how the table and OpenAPI call it.
PACKAGES = {
    "api/admission/v1": "admission/v1",
    "api/admissionregistration/v1": "admissionregistration/v1",
    "api/apidiscovery/v2": "apidiscovery/v2",
    "api/apps/v1": "apps/v1",
    "api/authentication/v1": "authentication/v1",
    "api/authorization/v1": "authorization/v1",
    "api/autoscaling/v1": "autoscaling/v1",
    "api/autoscaling/v2": "autoscaling/v2",
    "api/batch/v1": "batch/v1",
    "api/certificates/v1": "certificates/v1",
    "api/coordination/v1": "coordination/v1",
    "api/core/v1": "core/v1",
    "api/discovery/v1": "discovery/v1",
    "api/events/v1": "events/v1",
    "api/flowcontrol/v1": "flowcontrol/v1",
    "api/networking/v1": "networking/v1",
    "api/node/v1": "node/v1",
    "api/policy/v1": "policy/v1",
    "api/rbac/v1": "rbac/v1",
    "api/resource/v1": "resource/v1",
    "api/scheduling/v1": "scheduling/v1",
    "api/storage/v1": "storage/v1",
    "apiextensions-apiserver/pkg/apis/apiextensions/v1": "apiextensions/v1",
    "kube-aggregator/pkg/apis/apiregistration/v1": "apiregistration/v1",
    "apimachinery/pkg/apis/meta/v1": "meta/v1",
    "apimachinery/pkg/types": "types",
    "apimachinery/pkg/runtime": "runtime",
    "apimachinery/pkg/api/resource": "resource",
    "apimachinery/pkg/util/intstr": "intstr",
}
IMPORTS = {"k8s.io/" + path: name for path, name in PACKAGES.items()}

# Lists that are told apart from none when they are empty, as what a pointer points to is.
EMPTY_COUNTS = {("autoscaling/v2.HPAScalingRules", "policies")}

# Types that read and write themselves: one letter each.
SPECIAL = {
    "resource.Quantity": "q",
    "intstr.IntOrString": "I",
    "meta/v1.Time": "t",
    "meta/v1.MicroTime": "u",
    "meta/v1.Duration": "d",
    "meta/v1.FieldsV1": "F",
    "runtime.RawExtension": "R",
    "apiextensions/v1.JSON": "J",
    "apiextensions/v1.JSONSchemaPropsOrBool": "B",
    "apiextensions/v1.JSONSchemaPropsOrArray": "A",
    "apiextensions/v1.JSONSchemaPropsOrStringArray": "S",
}
PRIMITIVE = {
    "string": "s", "bool": "b", "int32": "i", "int64": "l", "int": "l", "uint8": "i", "uint32": "l", "uint64": "l",
    "float64": "f", "interface{}": "J", "any": "J",
}
# Kinds of the meta group that the API machinery itself reads or answers with, in every group.
META_KINDS = {
    "APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "CreateOptions", "DeleteOptions", "GetOptions",
    "List", "ListOptions", "PartialObjectMetadata", "PartialObjectMetadataList", "PatchOptions", "Status", "Table",
    "TableOptions", "UpdateOptions", "WatchEvent",
}

FIELD = re.compile(r"^(?:([A-Za-z_]\w*)\s+)?(\S+(?: \S+)*?)\s+`([^`]*)`")


class Go:
    """The type declarations of all packages."""

    def __init__(self, root):
        self.structs, self.named, self.messages, self.groups = {}, {}, set(), {}
        for path, package in PACKAGES.items():
            for file in sorted(glob.glob(os.path.join(root, path, "*.go"))):
                base = os.path.basename(file)
                if base.endswith("_test.go") or base.startswith("zz_") or base.startswith("generated"):
                    continue
                with open(file, encoding="utf-8") as text:
                    self.read(package, text.read())

    def read(self, package, text):
        imports = {}
        for alias, path in re.findall(r'^\s*(?:import\s+)?(\w+\s+)?"(k8s\.io/[^"]+)"', text, re.M):
            if path in IMPORTS:
                imports[alias.strip() or path.rsplit("/", 1)[1]] = IMPORTS[path]
        group = re.search(r'GroupName\s*=\s*"([^"]*)"', text)
        if group:
            self.groups[package] = group.group(1)
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        nullable, fields = False, None
        for line in text.split("\n"):
            line = line.strip()
            if fields is not None:
                if line == "}":
                    fields = None
                elif line and not line.startswith("//"):
                    match = FIELD.match(line)
                    if match:
                        name, kind, tags = match.groups()
                        fields.append((name, self.resolve(package, imports, kind), dict(re.findall(r'(\w+):"([^"]*)"', tags))))
                continue
            if line.startswith("//"):
                nullable = nullable or "+protobuf.nullable" in line
                continue
            match = re.match(r"type (\w+) struct ?\{(\}?)$", line)
            if match:
                found = self.structs.setdefault(f"{package}.{match.group(1)}", [])
                fields = None if match.group(2) else found
            else:
                match = re.match(r"type (\w+) (?:= )?([\w.\[\]*]+)(?:\s*//.*)?$", line)
                if match and match.group(2) not in ("interface", "func"):
                    name = f"{package}.{match.group(1)}"
                    self.named[name] = self.resolve(package, imports, match.group(2))
                    if nullable:
                        self.messages.add(name)
            if line:
                nullable = False

    def resolve(self, package, imports, kind):
        """A Go type with full package names: '*', '[]' and 'map[K]' before a name."""
        if kind.startswith("*"):
            return "*" + self.resolve(package, imports, kind[1:])
        if kind.startswith("[]"):
            return "[]" + self.resolve(package, imports, kind[2:])
        match = re.match(r"map\[([\w.]+)\](.*)$", kind)
        if match:
            key, value = (self.resolve(package, imports, part) for part in match.groups())
            return f"map[{key}]{value}"
        if kind in PRIMITIVE or kind == "byte":
            return kind
        if "." in kind:
            alias, name = kind.split(".")
            return f"{imports.get(alias, alias)}.{name}"
        return f"{package}.{kind}"


def shown(kind):
    """How Go itself prints a type: only the last part of the package."""
    return re.sub(r"[\w/]*/(\w+\.)", r"\1", kind).replace("byte", "uint8").replace("interface{}", "interface {}")


class Table:
    def __init__(self, go, openapi):
        self.go, self.openapi = go, openapi
        self.done, self.queue, self.atomic = [], [], {}

    def expression(self, kind, name=True):
        """The table's expression for a Go type; names the type where Go has a name for it."""
        if kind.startswith("*"):
            return "*" + self.expression(kind[1:])
        if kind == "[]byte":
            return "y"
        if kind.startswith("[]"):
            return "[]" + self.expression(kind[2:])
        match = re.match(r"map\[([\w./]+)\](.*)$", kind)
        if match:
            return f"map[{shown(match.group(1))}]{self.expression(match.group(2))}"
        if kind in PRIMITIVE:
            letter = PRIMITIVE[kind]
            return letter if kind not in ("int", "uint8", "uint32", "uint64") else "{" + kind + "}" + letter
        if kind in SPECIAL:
            return SPECIAL[kind]
        if kind in self.go.named and kind not in self.go.structs:
            inner = self.expression(self.go.named[kind])
            inner = re.sub(r"^\{[^}]*\}", "", inner)
            if inner.startswith("@"):
                return inner
            return "{" + shown(kind) + "}" + ("!" if kind in self.go.messages else "") + inner
        if kind in self.go.structs:
            self.want(kind)
            return "@" + kind
        raise SystemExit(f"unknown type {kind}")

    def want(self, struct):
        if struct not in self.done and struct not in self.queue:
            self.queue.append(struct)

    def definition(self, struct):
        package, name = struct.rsplit(".", 1)
        return self.openapi.get(f"{package.replace('/', '.')}.{name}", {})

    def fields(self, struct, outer="", definition=None, within=()):
        """The fields as JSON has them; embedded structs are laid out flat, as `outer.number` for protobuf."""
        definition = definition or self.definition(struct)
        for name, kind, tags in self.go.structs[struct]:
            parts = tags.get("json", "").split(",")
            if parts[0] == "-":
                continue
            number = tags.get("protobuf", "").split(",")
            number = number[1] if len(number) > 1 else ""
            if "inline" in parts or (not parts[0] and name is None):
                inner = kind.lstrip("*")
                # Without a number of its own, as TypeMeta, it isn't part of the message.
                yield from self.fields(inner, outer + number + "." if number and outer is not None else None, definition,
                                       (*within, inner.rsplit(".", 1)[-1]))
                continue
            yield self.line(name or kind.rsplit(".", 1)[-1], parts[0] or name, kind, parts[1:], tags,
                            outer + number if number and outer is not None else "", definition, within)

    def embedded(self, struct, outer=""):
        """The numbers of embedded messages, which are on the wire even when they are empty."""
        for _, kind, tags in self.go.structs[struct]:
            if "inline" in tags.get("json", "").split(",") and "protobuf" in tags:
                number = outer + tags["protobuf"].split(",")[1]
                yield number
                yield from self.embedded(kind.lstrip("*"), number + ".")

    def line(self, go_name, name, kind, options, tags, number, definition, within):
        said = dict(definition.get("properties", {}).get(name, {}))
        pointer = kind.startswith("*")
        words = [name, self.expression(kind[1:] if pointer else kind)]
        if pointer:
            words.append("*")
        if "omitempty" in options:
            words.append("o")
        if "omitzero" in options:
            words.append("z")
        if name in definition.get("required", ()):
            words.append("r")
        if number:
            words.append("#" + number)
        if go_name != name[:1].upper() + name[1:]:
            words.append("g=" + go_name)
        if within:
            words.append("w=" + ".".join(within))
        if "x-kubernetes-list-type" in said:
            words.append("L=" + said["x-kubernetes-list-type"])
        if "x-kubernetes-list-map-keys" in said:
            words.append("K=" + ",".join(said["x-kubernetes-list-map-keys"]))
        if "x-kubernetes-map-type" in said:
            words.append("M=" + said["x-kubernetes-map-type"])
        strategy = tags.get("patchStrategy") or said.get("x-kubernetes-patch-strategy")
        if strategy:
            words.append("P=" + strategy)
        key = tags.get("patchMergeKey") or said.get("x-kubernetes-patch-merge-key")
        if key:
            words.append("k=" + key)
        enum = said.get("enum") or said.get("items", {}).get("enum")
        if enum:
            words.append("E=" + ",".join(enum).replace(" ", "~"))
        # That a required field has a zero value goes without saying.
        default = said.get("default")
        if default not in (None, {}, "", 0, False) or default == "" and name not in definition.get("required", ()):
            words.append("D=" + json.dumps(said["default"], separators=(",", ":")))
        return " ".join(words)

    def told(self, struct, line):
        name, kind, rest = line.split(" ", 2)
        return f"{name} {kind} * {rest}" if (struct, name) in EMPTY_COUNTS else line

    def write(self, out):
        kinds = []
        for package in PACKAGES.values():
            if "/" not in package:
                continue
            group, version = self.go.groups.get(package, ""), package.split("/")[1]
            for struct, fields in self.go.structs.items():
                owner, name = struct.rsplit(".", 1)
                if owner != package or name.startswith("Internal") or not name[0].isupper():
                    continue
                embeds = any(kind == "meta/v1.TypeMeta" and not field for field, kind, _ in fields)
                if package == "meta/v1":
                    embeds = name in META_KINDS
                if embeds and name not in ("TypeMeta",):
                    kinds.append((("*" if package == "meta/v1" else group or "core"), version, name, struct))
                    self.want(struct)
        self.want("apiextensions/v1.JSONSchemaProps")
        self.want("meta/v1.ObjectMeta")
        self.want("meta/v1.ListMeta")
        blocks = {}
        while self.queue:
            struct = self.queue.pop(0)
            self.done.append(struct)
            definition = self.definition(struct)
            head = "struct " + struct
            if definition.get("x-kubernetes-map-type") == "atomic":
                head += " atomic"
            embedded = list(self.embedded(struct))
            if embedded:
                head += " embeds=" + ",".join(embedded)
            blocks[struct] = [head] + [" " + self.told(struct, line) for line in self.fields(struct)]
        for group, version, name, struct in sorted(kinds):
            print("kind", group, version, name, struct, file=out)
        for struct in sorted(blocks):
            print("\n".join(blocks[struct]), file=out)


def main():
    kubernetes, root = sys.argv[1:]
    openapi = {}
    for file in sorted(glob.glob(os.path.join(kubernetes, "openapi-v3", "*.json"))):
        with open(file, encoding="utf-8") as text:
            for name, definition in json.load(text).get("components", {}).get("schemas", {}).items():
                package, kind = name.rsplit(".", 1)
                short = ".".join(package.split(".")[-2:])
                openapi[f"{short}.{kind}"] = definition
    Table(Go(root), openapi).write(sys.stdout)


main()
