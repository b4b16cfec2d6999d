#!/usr/bin/env python3
"""Writes objects.txt: what every cluster has from its start, as a kube-apiserver made it.

usage: generate.py DIR > objects.txt

DIR holds lists of the objects: rbac/live-{clusterroles,clusterrolebindings,roles,rolebindings}.json and
bootstrap/apis_{flowcontrol.apiserver.k8s.io_v1_{prioritylevelconfigurations,flowschemas},scheduling.k8s.io_v1_priorityclasses}.json.
"""

import json
import pathlib
import sys


def items(path):
    return json.loads((pathlib.Path(sys.argv[1]) / path).read_text())["items"]


def join(values):
    assert all(v and not set(v) & set(" ,") for v in values), values
    return ",".join(values)


def groups(values):
    return join([g or "core" for g in values])


def rule(r):
    if "nonResourceURLs" in r:
        return f" {join(r['verbs'])} url {join(r['nonResourceURLs'])}"
    names = " =" + join(r["resourceNames"]) if "resourceNames" in r else ""
    return f" {join(r['verbs'])} {groups(r['apiGroups'])} {join(r['resources'])}{names}"


def place(m):
    return f"{m['namespace']}/{m['name']}" if "namespace" in m else m["name"]


AGGREGATE = "rbac.authorization.k8s.io/"

for kind, file in [("clusterrole", "clusterroles"), ("role", "roles")]:
    for o in items(f"rbac/live-{file}.json"):
        labels = [k.removeprefix(AGGREGATE) for k in o["metadata"]["labels"] if k.startswith(AGGREGATE)]
        print(" ".join([kind, place(o["metadata"]), *labels]))
        for s in o.get("aggregationRule", {}).get("clusterRoleSelectors", []):
            (label,) = s["matchLabels"]
            print(f" aggregate {label.removeprefix(AGGREGATE)}")
        for r in o["rules"] or []:
            print(rule(r))

for kind, file in [("clusterrolebinding", "clusterrolebindings"), ("rolebinding", "rolebindings")]:
    for o in items(f"rbac/live-{file}.json"):
        ref = o["roleRef"]
        print(kind, place(o["metadata"]), ref["kind"], ref["name"])
        for s in o.get("subjects", []):
            print(f" to {s['kind']} {place(s)}")

for o in items("bootstrap/apis_flowcontrol.apiserver.k8s.io_v1_prioritylevelconfigurations.json"):
    spec = o["spec"]
    limits = spec.get("limited") or spec["exempt"]
    how = "exempt"
    if "limited" in spec:
        response = limits["limitResponse"]
        how = response["type"].lower()
        if "queuing" in response:
            how += ":{queues}:{handSize}:{queueLengthLimit}".format(**response["queuing"])
    print("prioritylevel", o["metadata"]["name"], limits["nominalConcurrencyShares"], limits["lendablePercent"], how)

for o in items("bootstrap/apis_flowcontrol.apiserver.k8s.io_v1_flowschemas.json"):
    spec = o["spec"]
    method = spec.get("distinguisherMethod", {}).get("type", "-")
    level = spec["priorityLevelConfiguration"]["name"]
    print("flowschema", o["metadata"]["name"], level, spec["matchingPrecedence"], method)
    (policy,) = spec["rules"]
    for s in policy["subjects"]:
        print(f" to {s['kind']} {place(s[s['kind'][0].lower() + s['kind'][1:]])}")
    for r in policy.get("resourceRules", []):
        assert r["namespaces"] == ["*"]
        print(rule(r) + (" cluster" if r.get("clusterScope") else ""))
    for r in policy.get("nonResourceRules", []):
        print(rule(r))

for o in items("bootstrap/apis_scheduling.k8s.io_v1_priorityclasses.json"):
    print("priorityclass", o["metadata"]["name"], o["value"], o["description"])
