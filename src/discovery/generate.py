#!/usr/bin/env python3
"""Writes resources.txt, the table of the built-in resources.

    generate.py KUBERNETES > resources.txt

KUBERNETES is a directory with `discovery/*.json`, `openapi-v3/*.json` and `bootstrap/*.json` of a running kube-apiserver. Which version of a
kind is stored is told by its storage version hash. The format is described in table.rs, which reads it.
"""
import base64
import glob
import hashlib
import json
import os
import sys

VERBS = {"create": "c", "delete": "d", "deletecollection": "D", "get": "g", "list": "l", "patch": "p", "update": "u", "watch": "w"}
# Where a kind moved, its objects stayed in the group that had it first.
MOVED = {"events.k8s.io": ""}


def load(*path):
    with open(os.path.join(*path), encoding="utf-8") as text:
        return json.load(text)


def storage_hash(*gvk):
    return base64.b64encode(hashlib.sha256("/".join(gvk).encode()).digest()[:8]).decode()


def verbs(names):
    return "".join(VERBS[name] for name in names)


def main():
    root = sys.argv[1]
    hashes = {}
    for file in glob.glob(os.path.join(root, "discovery", "api*_v*.json")):
        document = load(file)
        for resource in document["resources"]:
            if "storageVersionHash" in resource:
                hashes[document["groupVersion"], resource["name"]] = resource["storageVersionHash"]
    priorities = {}
    for service in load(root, "bootstrap", "apis_apiregistration.k8s.io_v1_apiservices.json")["items"]:
        spec = service["spec"]
        priorities[spec.get("group", ""), spec["version"]] = spec["groupPriorityMinimum"], spec["versionPriority"]
    # Which DELETEs answer with the object rather than a Status.
    returned = set()
    for file in glob.glob(os.path.join(root, "openapi-v3", "api*_v*.json")):
        for path, methods in load(file)["paths"].items():
            delete = methods.get("delete", {})
            if delete.get("x-kubernetes-action") == "delete":
                schema = delete["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
                if not schema.endswith(".Status"):
                    kind = delete["x-kubernetes-group-version-kind"]
                    returned.add((kind["group"], kind["version"], kind["kind"]))
    items = load(root, "discovery", "aggregated-api.json")["items"] + load(root, "discovery", "aggregated-apis.json")["items"]
    served = {(item["metadata"].get("name", ""), version["version"]) for item in items for version in item["versions"]}
    for item in items:
        group = item["metadata"].get("name", "")
        for version in item["versions"]:
            version_name = version["version"]
            # The group of API services has none for itself: it always comes first.
            high, low = priorities.get((group, version_name), ("first", 1))
            print(f"\n{group or 'core'}/{version_name} {high} {low}")
            for resource in version["resources"]:
                kind, plural = resource["responseKind"]["kind"], resource["resource"]
                scope = {"Namespaced": "n", "Cluster": "c"}[resource["scope"]]
                words = [plural, resource["singularResource"], kind, scope, verbs(resource["verbs"])]
                if "shortNames" in resource:
                    words.append("short=" + ",".join(resource["shortNames"]))
                if "categories" in resource:
                    words.append("categories=" + ",".join(resource["categories"]))
                group_version = f"{group}/{version_name}".lstrip("/")
                if (group_version, plural) in hashes:
                    home = MOVED.get(group, group)
                    tried = (version_name, "v2", "v1", "v1beta1", "v1alpha1")
                    stored = next(v for v in tried if storage_hash(home, v, kind) == hashes[group_version, plural])
                    if (home, stored) == (group, version_name):
                        words.append("stored")
                    elif (home, stored) in served:
                        words.append(f"stored={home or 'core'}/{stored}")
                    else:
                        words.append(f"stored hashed={stored}")
                if (group, version_name, kind) in returned:
                    words.append("returned")
                print(*words)
                for sub in resource.get("subresources", ()):
                    of = sub["responseKind"]
                    line = [" " + sub["subresource"], of["kind"], verbs(sub["verbs"])]
                    if of["version"]:
                        line.append(f"of={of['group'] or 'core'}/{of['version']}")
                    print(*line)


main()
