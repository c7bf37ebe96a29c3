"""The official Python client, through all it can do, against the cluster of the current kubeconfig.

Takes an image with a shell, which the node has or can pull. Makes a namespace and removes it; ends with an error at
the first thing that is not as Kubernetes has it.
"""

import sys
import threading
import time
import uuid

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import stream

PATIENCE_SECONDS = 120


def refused(code, call):
    """The answer to a call that must be refused with this code."""
    try:
        call()
    except ApiException as error:
        assert error.status == code, f"{error.status} instead of {code}: {error.body}"
        return error
    raise AssertionError(f"not refused with {code}")


def objects(core, namespace):
    """Create, read, list, replace, patch in three ways, delete."""
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a", labels={"n": "1"}), data={"k": "v"})
    made = core.create_namespaced_config_map(namespace, body)
    assert made.metadata.uid and made.data == {"k": "v"}
    assert "already exists" in refused(409, lambda: core.create_namespaced_config_map(namespace, body)).body
    made.data["k"] = "w"
    replaced = core.replace_namespaced_config_map("a", namespace, made)
    assert replaced.metadata.resource_version != made.metadata.resource_version
    refused(409, lambda: core.replace_namespaced_config_map("a", namespace, made))
    core.patch_namespaced_config_map("a", namespace, {"data": {"l": "m"}})
    core.patch_namespaced_config_map("a", namespace, [{"op": "remove", "path": "/data/k"}])
    applied = core.patch_namespaced_config_map(
        "a", namespace, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"s": "a"}},
        field_manager="tour", force=True, _content_type="application/apply-patch+yaml")
    assert applied.data == {"l": "m", "s": "a"}, applied.data
    assert any(entry.operation == "Apply" for entry in applied.metadata.managed_fields)
    listed = core.list_namespaced_config_map(namespace, label_selector="n=1", limit=1)
    assert [item.metadata.name for item in listed.items] == ["a"]
    core.delete_namespaced_config_map("a", namespace)
    refused(404, lambda: core.read_namespaced_config_map("a", namespace))


def watching(core, namespace):
    """A watch shows what happens, in order."""
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="w")))
    core.patch_namespaced_config_map("w", namespace, {"data": {"k": "v"}})
    core.delete_namespaced_config_map("w", namespace)
    seen = []
    for event in watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version=start,
            field_selector="metadata.name=w", timeout_seconds=PATIENCE_SECONDS):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


def pods(core, namespace, image):
    """A pod runs, logs, takes commands and input."""
    container = client.V1Container(
        name="c", image=image, image_pull_policy="IfNotPresent",
        command=["sh", "-c", "echo from the log; while true; do sleep 1; done"])
    core.create_namespaced_pod(namespace, client.V1Pod(
        metadata=client.V1ObjectMeta(name="p"),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)))
    for event in watch.Watch().stream(
            core.list_namespaced_pod, namespace, field_selector="metadata.name=p", timeout_seconds=PATIENCE_SECONDS):
        if event["object"].status.phase == "Running":
            break
    else:
        raise AssertionError("the pod does not run")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while core.read_namespaced_pod_log("p", namespace) != "from the log\n":
        assert time.monotonic() < deadline, "the log does not come"
    said = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["echo", "hello"],
                  stdout=True, stderr=True, stdin=False, tty=False)
    assert said == "hello\n", said
    shell = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh"],
                   stdout=True, stderr=True, stdin=True, tty=False, _preload_content=False)
    shell.write_stdin("echo again; exit 3\n")
    shell.run_forever(timeout=PATIENCE_SECONDS)
    assert shell.read_stdout() == "again\n" and shell.returncode == 3, shell.returncode
    core.delete_namespaced_pod("p", namespace)


def custom_objects(api, namespace):
    """A kind of one's own, through the dynamic client."""
    group = f"{namespace}.example.com"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"tours.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "tours", "kind": "Tour"},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]}}
    extensions = client.ApiextensionsV1Api(api)
    extensions.create_custom_resource_definition(definition)
    try:
        for event in watch.Watch().stream(
                extensions.list_custom_resource_definition, field_selector=f"metadata.name=tours.{group}",
                timeout_seconds=PATIENCE_SECONDS):
            conditions = event["object"].status.conditions or []
            if any(c.type == "Established" and c.status == "True" for c in conditions):
                break
        tours = dynamic.DynamicClient(api).resources.get(api_version=f"{group}/v1", kind="Tour")
        made = tours.create(body={"apiVersion": f"{group}/v1", "kind": "Tour", "metadata": {"name": "t"},
                                  "spec": {"n": 1}}, namespace=namespace)
        assert made.spec.n == 1
        wrong = {"spec": {"n": "one"}}
        refused(422, lambda: tours.patch(name="t", namespace=namespace, body=wrong,
                                         content_type="application/merge-patch+json"))
        applied = tours.server_side_apply(
            body={"apiVersion": f"{group}/v1", "kind": "Tour", "metadata": {"name": "t"}, "spec": {"n": 2}},
            namespace=namespace, field_manager="tour", force_conflicts=True)
        assert applied.spec.n == 2
        assert len(tours.get(namespace=namespace).items) == 1
        tours.delete(name="t", namespace=namespace)
    finally:
        extensions.delete_custom_resource_definition(f"tours.{group}")


def election(namespace):
    """Somebody who wants to lead does."""
    leads = threading.Event()

    def lead():
        leads.set()

    lock = LeaseLock("leader", namespace, str(uuid.uuid4()))
    election_config = electionconfig.Config(
        lock, lease_duration=15, renew_deadline=10, retry_period=2, onstarted_leading=lead, onstopped_leading=None)
    threading.Thread(target=leaderelection.LeaderElection(election_config).run, daemon=True).start()
    assert leads.wait(PATIENCE_SECONDS), "nobody leads"


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    namespace = f"tour-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
    try:
        for name, step in [
                ("objects", lambda: objects(core, namespace)),
                ("watches", lambda: watching(core, namespace)),
                ("pods", lambda: pods(core, namespace, sys.argv[1])),
                ("custom objects", lambda: custom_objects(api, namespace)),
                ("leader election", lambda: election(namespace))]:
            step()
            print(f"{name}: as Kubernetes has them")
    finally:
        core.delete_namespace(namespace)


if __name__ == "__main__":
    main()
