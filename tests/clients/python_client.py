"""What the kubernetes package from PyPI does against a server: python_client.py KUBECONFIG"""

import sys
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException


def refused(code, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (ApiException, dynamic.exceptions.DynamicApiError) as error:
        assert error.status == code, error
        assert f'"reason":"{reason}"' in str(error.body).replace("b'", ""), error.body
        return error
    raise AssertionError(f"{call.__name__} should have been refused with {code}")


config.load_kube_config(sys.argv[1])
api = client.ApiClient()
core, apps, rbac = client.CoreV1Api(api), client.AppsV1Api(api), client.RbacAuthorizationV1Api(api)
space = "python"
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=space)))
core.create_namespaced_service_account(space, {"metadata": {"name": "default"}})

# Typed objects there and back.
pod = client.V1Pod(
    metadata=client.V1ObjectMeta(generate_name="pod-", labels={"app": "a"}),
    spec=client.V1PodSpec(
        containers=[
            client.V1Container(
                name="c",
                image="registry.example/c",
                ports=[client.V1ContainerPort(container_port=80)],
                resources=client.V1ResourceRequirements(requests={"cpu": "0.5", "memory": "1Gi"}),
                liveness_probe=client.V1Probe(http_get=client.V1HTTPGetAction(path="/", port="http")),
            )
        ]
    ),
)
made = core.create_namespaced_pod(space, pod)
assert made.metadata.name.startswith("pod-") and len(made.metadata.name) == 9
assert made.spec.containers[0].resources.requests["cpu"] == "500m"
assert made.spec.containers[0].liveness_probe.period_seconds == 10
assert made.metadata.creation_timestamp.tzinfo is not None
read = core.read_namespaced_pod(made.metadata.name, space)
assert read == made

# Exceptions.
refused(404, "NotFound", core.read_namespaced_pod, "none", space)
refused(409, "AlreadyExists", core.create_namespace, {"metadata": {"name": space}})
refused(422, "Invalid", core.create_namespaced_config_map, space, {"metadata": {"name": "A_B"}})
stale = core.read_namespaced_pod(made.metadata.name, space)
core.patch_namespaced_pod(made.metadata.name, space, {"metadata": {"labels": {"b": "c"}}})
stale.metadata.labels["b"] = "d"
refused(409, "Conflict", core.replace_namespaced_pod, stale.metadata.name, space, stale)

# Lists: selectors and pages.
for index in range(7):
    core.create_namespaced_config_map(
        space, client.V1ConfigMap(metadata={"name": f"c{index}", "labels": {"odd": str(index % 2)}}, data={"i": str(index)})
    )
assert len(core.list_namespaced_config_map(space, label_selector="odd in (1), odd").items) == 3
assert [c.metadata.name for c in core.list_config_map_for_all_namespaces(field_selector="metadata.name=c4").items] == ["c4"]
names, token = [], None
while True:
    page = core.list_namespaced_config_map(space, limit=3, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
assert names == [f"c{index}" for index in range(7)], names
refused(400, "BadRequest", core.list_namespaced_config_map, space, limit=3, _continue="wrong")

# A watch, from the list on.
start = core.list_namespaced_config_map(space).metadata.resource_version


def change():
    core.patch_namespaced_config_map("c0", space, {"data": {"i": "100"}})
    core.create_namespaced_config_map(space, {"metadata": {"name": "late"}})
    core.delete_namespaced_config_map("c1", space)


threading.Timer(0.3, change).start()
seen = []
for event in watch.Watch().stream(core.list_namespaced_config_map, space, resource_version=start, timeout_seconds=20):
    seen.append((event["type"], event["object"].metadata.name))
    if len(seen) == 3:
        break
assert seen == [("MODIFIED", "c0"), ("ADDED", "late"), ("DELETED", "c1")], seen
gone = list(watch.Watch().stream(core.list_namespaced_config_map, space, resource_version=start, timeout_seconds=1))
assert len(gone) == 3, gone

# Other kinds, their parts, and what is asked by creating.
deployment = {
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "c"}]}},
    },
}
apps.create_namespaced_deployment(space, deployment)
scale = apps.read_namespaced_deployment_scale("web", space)
scale.spec.replicas = 4
apps.replace_namespaced_deployment_scale("web", space, scale)
assert apps.read_namespaced_deployment("web", space).spec.replicas == 4
apps.patch_namespaced_deployment_status("web", space, {"status": {"replicas": 4}})
apps.patch_namespaced_deployment("web", space, [{"op": "replace", "path": "/spec/replicas", "value": 5}])
assert apps.read_namespaced_deployment("web", space).spec.replicas == 5
secret = core.create_namespaced_secret(space, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
assert secret.data == {"a": "Yg=="}
review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": space}}}
assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
token = core.create_namespaced_service_account_token(
    "default", space, {"spec": {"expirationSeconds": 600, "audiences": None}}
).status.token

# With the rights of a service account.
robot = client.Configuration.get_default_copy()
robot.cert_file = robot.key_file = None
robot.api_key = {"authorization": f"Bearer {token}"}
robot = client.CoreV1Api(client.ApiClient(robot))
refused(403, "Forbidden", robot.list_namespaced_pod, space)
rbac.create_namespaced_role(
    space, {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}
)
rbac.create_namespaced_role_binding(
    space,
    {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": space}],
    },
)
for attempt in range(100):
    try:
        assert len(robot.list_namespaced_pod(space).items) == 1
        break
    except ApiException:
        time.sleep(0.1)
else:
    raise AssertionError("the role has no effect")

# Manifests, and the dynamic client with discovery and server-side apply.
utils.create_from_dict(api, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made", "namespace": space}})
dyn = dynamic.DynamicClient(api)
maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}, "data": {"a": "b"}}
applied = maps.server_side_apply(body=body, name="made", namespace=space, field_manager="python")
assert applied.data.a == "b"
refused(409, "Conflict", maps.server_side_apply, body={**body, "data": {"a": "c"}}, name="made", namespace=space, field_manager="other")
assert any(item.metadata.name == "made" for item in maps.get(namespace=space).items)
assert dyn.resources.get(api_version="apps/v1", kind="Deployment").namespaced
refused(404, "NotFound", maps.get, name="none", namespace=space)

# Deletion.
core.delete_namespaced_pod(made.metadata.name, space, grace_period_seconds=0)
refused(404, "NotFound", core.read_namespaced_pod, made.metadata.name, space)
core.delete_collection_namespaced_config_map(space, label_selector="odd")
assert sorted(c.metadata.name for c in core.list_namespaced_config_map(space).items) == ["late", "made"]
apps.delete_namespaced_deployment("web", space, body=client.V1DeleteOptions(propagation_policy="Foreground"))
assert apps.read_namespaced_deployment("web", space).metadata.finalizers == ["foregroundDeletion"]
assert client.VersionApi(api).get_code().minor == "36"
print("ok")
