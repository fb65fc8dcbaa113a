"""What people do with workloads, with kubectl: the standard tasks, in manifests that 1.20 and later releases take.

Each story is told to both clusters in a namespace of its own; what it leaves behind is compared. A story asserts nothing
itself, it only waits where a person would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import yaml

from .clusters import Cluster

Story = Callable[[Cluster], None]


def template(
    app: str, image: str = "web:1", *, annotations: object = None, labels: object = None, **spec: object
) -> dict[str, object]:
    container = {"name": "main", "image": image, **spec.pop("container", {})}  # type: ignore[dict-item]
    meta = {"labels": {"app": app, **(labels or {})}}  # type: ignore[dict-item]
    if annotations:
        meta["annotations"] = annotations  # type: ignore[assignment]
    return {"metadata": meta, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}}


def workload(kind: str, name: str, pod: dict[str, object] | None = None, **spec: object) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": pod or template(name), **spec},
        }
    )


def job(name: str, pod: dict[str, object], **spec: object) -> str:
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": pod, **spec}}
    return yaml.safe_dump(made)


def rolling_update(cluster: Cluster) -> None:
    rolling = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    cluster.apply(workload("Deployment", "web", replicas=4, strategy=rolling))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("set", "image", "deployment/web", "main=web:2")
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("scale", "deployment/web", "--replicas=3")
    cluster.until_is("deployment/web", ".status.readyReplicas", "3")


def rollback(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=2))
    for image in ("web:2", "web:3", "web:4"):
        cluster("rollout", "status", "deployment/web", "--timeout=60s")
        cluster("set", "image", "deployment/web", f"main={image}")
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("rollout", "undo", "deployment/web", "--to-revision=2")
    cluster("rollout", "status", "deployment/web", "--timeout=60s")


def a_rollout_that_stalls(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=4, progressDeadlineSeconds=2))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("set", "image", "deployment/web", "main=web:missing")
    cluster("rollout", "status", "deployment/web", "--timeout=60s", check=False)


def pause_and_resume(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=2))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("rollout", "pause", "deployment/web")
    cluster("set", "image", "deployment/web", "main=web:2")
    cluster("set", "env", "deployment/web", "A=b")
    cluster("scale", "deployment/web", "--replicas=3")
    cluster.until_is("deployment/web", ".status.replicas", "3")
    cluster("rollout", "resume", "deployment/web")
    cluster("rollout", "status", "deployment/web", "--timeout=60s")


def paused_for_good(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=2, paused=True))
    cluster.until_is("deployment/web", ".status.observedGeneration", "1")


def recreate(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=2, strategy={"type": "Recreate"}))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("set", "image", "deployment/web", "main=web:2")
    cluster("rollout", "status", "deployment/web", "--timeout=60s")


def adoption(cluster: Cluster) -> None:
    """A bare pod that fits is adopted; one whose label is changed is let go and replaced."""
    pod = {"apiVersion": "v1", "kind": "Pod", **template("web")}
    pod["metadata"]["name"] = "bare"  # type: ignore[index]
    cluster.apply(yaml.safe_dump(pod))
    cluster.until_is("pod/bare", ".status.phase", "Running")
    cluster.apply(workload("ReplicaSet", "web", replicas=2))
    cluster.until_is("replicaset/web", ".status.readyReplicas", "2")
    cluster("label", "pod", "bare", "app=other", "--overwrite")
    cluster.until_is("replicaset/web", ".status.readyReplicas", "2")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 3, "three pods")


def jobs_that_end(cluster: Cluster) -> None:
    once = {"simulated.fleetplane.io/run-for": "100ms"}
    fails = {"simulated.fleetplane.io/run-for": "100ms", "simulated.fleetplane.io/exit-code": "1"}
    cluster.apply(job("plain", template("plain", annotations=once, restartPolicy="Never")))
    cluster.apply(job("many", template("many", annotations=once, restartPolicy="Never"), completions=4, parallelism=2))
    cluster.apply(job("failing", template("failing", annotations=fails, restartPolicy="Never"), backoffLimit=0))
    long = {"simulated.fleetplane.io/run-for": "1h", "simulated.fleetplane.io/stop-delay": "100ms"}
    cluster.apply(job("late", template("late", annotations=long, restartPolicy="Never"), activeDeadlineSeconds=6))
    cluster.until_is("job/late", ".status.active", "1")
    cluster("wait", "--for=condition=complete", "job/plain", "job/many", "--timeout=60s")
    cluster("wait", "--for=condition=failed", "job/failing", "job/late", "--timeout=60s")


def a_queue_of_work(cluster: Cluster) -> None:
    """Parallelism without completions: one success ends it, the others finish."""
    once = {"simulated.fleetplane.io/run-for": "500ms"}
    cluster.apply(job("queue", template("queue", annotations=once, restartPolicy="OnFailure"), parallelism=2))
    cluster("wait", "--for=condition=complete", "job/queue", "--timeout=60s")


def deleting_a_job(cluster: Cluster) -> None:
    long = {"simulated.fleetplane.io/run-for": "1h"}
    for name in ("kept", "gone"):
        cluster.apply(job(name, template(name, annotations=long, restartPolicy="Never"), parallelism=2))
        cluster.until_is(f"job/{name}", ".status.active", "2")
    cluster("delete", "job/gone", "--timeout=60s")
    cluster("delete", "job/kept", "--cascade=orphan", "--timeout=60s")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 2, "the orphans only")


CRON: Final = """
apiVersion: batch/v1beta1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "%s"
  suspend: %s
  jobTemplate:
    spec:
      template:
        metadata: {annotations: {simulated.fleetplane.io/run-for: 100ms}}
        spec:
          restartPolicy: Never
          containers: [{name: main, image: "tick:1"}]
"""


def a_cron_job_run_by_hand(cluster: Cluster) -> None:
    cluster.apply(CRON % ("0 0 1 1 *", "true"))
    cluster("create", "job", "now", "--from=cronjob.v1beta1.batch/tick")
    cluster("wait", "--for=condition=complete", "job/now", "--timeout=60s")


def a_minute_of_a_cron_job(cluster: Cluster) -> None:
    cluster.apply(CRON % ("* * * * *", "false"))
    cluster.until(lambda: cluster.get("jobs")["items"], "a job of the minute", seconds=100)
    cluster.until(lambda: not cluster.get("cronjob", "tick")["status"].get("active"), "it is done")
    cluster("patch", "cronjob", "tick", "-p", '{"spec":{"suspend":true}}')


def stateful_set(cluster: Cluster) -> None:
    cluster.apply(workload("StatefulSet", "db", serviceName="db", replicas=3))
    cluster("rollout", "status", "statefulset/db", "--timeout=60s")
    cluster("set", "image", "statefulset/db", "main=web:2")
    cluster("rollout", "status", "statefulset/db", "--timeout=60s")
    cluster("scale", "statefulset/db", "--replicas=2")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 2, "two pods")


def stateful_set_in_parts(cluster: Cluster) -> None:
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    cluster.apply(
        workload(
            "StatefulSet", "db", serviceName="db", replicas=3, updateStrategy=partition, podManagementPolicy="Parallel"
        )
    )
    cluster("rollout", "status", "statefulset/db", "--timeout=60s")
    cluster("set", "image", "statefulset/db", "main=web:2")
    cluster.until_is("pod/db-2", ".spec.containers[0].image", "web:2")
    cluster.until_is("statefulset/db", ".status.readyReplicas", "3")


def stateful_set_with_claims(cluster: Cluster) -> None:
    for number in range(2):
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{cluster.namespace}-{number}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "by-hand",
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": cluster.namespace, "name": f"data-db-{number}"},
            },
        }
        cluster.apply(yaml.safe_dump(volume))
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claims = [{"metadata": {"name": "data"}, "spec": claim}]
    cluster.apply(workload("StatefulSet", "db", serviceName="db", replicas=2, volumeClaimTemplates=claims))
    cluster("rollout", "status", "statefulset/db", "--timeout=60s")
    cluster("delete", "statefulset/db", "--timeout=60s")
    cluster.until(lambda: not cluster.get("pods")["items"], "no pods")


def daemon_set(cluster: Cluster) -> None:
    cluster.apply(workload("DaemonSet", "agent"))
    cluster("rollout", "status", "daemonset/agent", "--timeout=60s")
    cluster("set", "image", "daemonset/agent", "main=web:2")
    cluster("rollout", "status", "daemonset/agent", "--timeout=60s")


def daemon_set_on_some_nodes(cluster: Cluster) -> None:
    mark = cluster.namespace
    cluster("label", "node", "sim-0", "sim-2", f"{mark}=yes")
    cluster.apply(workload("DaemonSet", "agent", template("agent", nodeSelector={mark: "yes"})))
    cluster.until_is("daemonset/agent", ".status.numberReady", "2")
    cluster("label", "node", "sim-2", f"{mark}-")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 1, "one pod")


def quota(cluster: Cluster) -> None:
    cluster("create", "quota", "few", "--hard=pods=2,configmaps=3,requests.cpu=1")
    cluster.until_is("quota/few", ".status.hard.pods", "2")
    asks = {"resources": {"requests": {"cpu": "100m"}}}
    cluster.apply(workload("Deployment", "web", template("web", container=asks), replicas=3))
    cluster.until_is("deployment/web", ".status.readyReplicas", "2")
    cluster("create", "configmap", "one")
    cluster.until_is("quota/few", ".status.used.requests\\.cpu", "200m")


def a_quota_that_frees_itself(cluster: Cluster) -> None:
    cluster("create", "quota", "few", "--hard=pods=2,count/jobs.batch=5")
    cluster.until_is("quota/few", ".status.hard.pods", "2")
    once = {"simulated.fleetplane.io/run-for": "100ms"}
    cluster.apply(
        job("three", template("three", annotations=once, restartPolicy="Never"), completions=3, parallelism=3)
    )
    cluster("wait", "--for=condition=complete", "job/three", "--timeout=60s")
    cluster.until_is("quota/few", ".status.used.pods", "0")


def limits(cluster: Cluster) -> None:
    cluster.apply(
        """
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}, max: {cpu: "1"}}]}
"""
    )
    cluster.apply(workload("Deployment", "web", replicas=1))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    greedy = template("greedy", container={"resources": {"limits": {"cpu": "2"}}})
    cluster.apply(workload("Deployment", "greedy", greedy, replicas=1))
    cluster("wait", "--for=condition=ReplicaFailure", "deployment/greedy", "--timeout=60s")


def preemption(cluster: Cluster) -> None:
    """On nodes of the story's own, so that the others are left alone."""
    chosen = {"nodeSelector": {"kubernetes.io/hostname": "sim-0"}}
    resources = {"resources": {"requests": {"ephemeral-storage": "200Gi"}}}
    cluster.apply(
        f"""
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: {cluster.namespace}}}
value: 1000
"""
    )
    cluster.apply(workload("ReplicaSet", "low", template("low", container=resources, **chosen), replicas=2))
    cluster.until_is("replicaset/low", ".status.readyReplicas", "2")
    high = template("high", container=resources, priorityClassName=cluster.namespace, **chosen)
    cluster.apply(workload("ReplicaSet", "high", high, replicas=1))
    cluster.until_is("replicaset/high", ".status.readyReplicas", "1")
    cluster.until_is("replicaset/low", ".status.readyReplicas", "1")


def unschedulable(cluster: Cluster) -> None:
    cluster.apply(workload("ReplicaSet", "picky", template("picky", nodeSelector={"is": "nowhere"}), replicas=1))
    asks = {"resources": {"requests": {"cpu": "500"}}}
    cluster.apply(workload("ReplicaSet", "huge", template("huge", container=asks), replicas=1))
    said = "{.items[*].status.conditions[?(@.type=='PodScheduled')].reason}"
    cluster.until(
        lambda: cluster("get", "pods", "-o", f"jsonpath={said}") == "Unschedulable Unschedulable", "both are refused"
    )


def budget(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=3))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("create", "poddisruptionbudget", "most", "--selector=app=web", "--min-available=2")
    cluster.until_is("pdb/most", ".status.disruptionsAllowed", "1")
    cluster("scale", "deployment/web", "--replicas=2")
    cluster.until_is("pdb/most", ".status.disruptionsAllowed", "0")
    name = cluster.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction"
    cluster("create", "--raw", path, "-f", "-", stdin=yaml.safe_dump(eviction), check=False)


def endpoints(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=3))
    never = {"simulated.fleetplane.io/ready": "false"}
    probe = {"readinessProbe": {"periodSeconds": 1, "exec": {"command": ["true"]}}}
    slow = template("slow", labels={"part-of": "all"}, annotations=never, container=probe)
    cluster.apply(workload("ReplicaSet", "slow", slow, replicas=1))
    for name, selector in (("web", {"app": "web"}), ("slow", {"app": "slow"}), ("none", {"app": "none"})):
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector, "ports": ports}}  # fmt: skip
        cluster.apply(yaml.safe_dump(service))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.until_is("replicaset/slow", ".status.replicas", "1")
    cluster.until(lambda: cluster("get", "pods", "-l", "app=slow", "-o", "jsonpath={.items[*].status.phase}") == "Running", "slow runs")  # fmt: skip


def cascades(cluster: Cluster) -> None:
    for name in ("background", "foreground", "orphan"):
        cluster.apply(workload("Deployment", name, replicas=2))
    for name in ("background", "foreground", "orphan"):
        cluster("rollout", "status", f"deployment/{name}", "--timeout=60s")
        cluster("delete", f"deployment/{name}", f"--cascade={name}", "--timeout=60s")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 2, "only the orphans' pods")


def owners(cluster: Cluster) -> None:
    """What nobody owns any more goes; an owner that blocks is waited for."""
    cluster("create", "configmap", "owner")
    uid = cluster("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    for name, owner in (("child", uid), ("stray", "00000000-0000-4000-8000-000000000000")):
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner, "blockOwnerDeletion": True}
        meta = {"name": name, "ownerReferences": [reference]}
        cluster.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}))
    cluster.until(lambda: "NotFound" in cluster("get", "configmap", "stray", check=False), "the stray is gone")
    cluster("delete", "configmap", "owner", "--cascade=foreground", "--timeout=60s")
    cluster("create", "configmap", "after")


def replication_controller(cluster: Cluster) -> None:
    controller = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "old"},
        "spec": {"replicas": 2, "selector": {"app": "old"}, "template": template("old")},
    }
    cluster.apply(yaml.safe_dump(controller))
    cluster.until_is("rc/old", ".status.readyReplicas", "2")
    cluster("scale", "rc/old", "--replicas=1")
    cluster.until_is("rc/old", ".status.readyReplicas", "1")


def minimum_ready(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", "web", replicas=2, minReadySeconds=2))
    cluster("rollout", "status", "deployment/web", "--timeout=60s")


def a_namespace_ends(cluster: Cluster) -> None:
    inner = cluster.within(f"{cluster.namespace}-inner")
    cluster("create", "namespace", inner.namespace)
    inner.until(lambda: "default" in inner("get", "serviceaccounts", check=False), "the account")
    inner.apply(workload("Deployment", "web", replicas=2))
    inner("rollout", "status", "deployment/web", "--timeout=60s")
    cluster("delete", "namespace", inner.namespace, "--timeout=60s")
    cluster("create", "configmap", "it-went")


STORIES: Final[tuple[Story, ...]] = (
    rolling_update,
    a_rollout_that_stalls,
    jobs_that_end,
    stateful_set,
    daemon_set,
    quota,
    limits,
    preemption,
    cascades,
)
"""Told in every run; the others take a minute and a half together."""

LONG: Final[tuple[Story, ...]] = (
    rollback,
    pause_and_resume,
    paused_for_good,
    recreate,
    adoption,
    a_queue_of_work,
    deleting_a_job,
    a_cron_job_run_by_hand,
    stateful_set_in_parts,
    stateful_set_with_claims,
    daemon_set_on_some_nodes,
    a_quota_that_frees_itself,
    unschedulable,
    budget,
    endpoints,
    owners,
    replication_controller,
    minimum_ready,
    a_namespace_ends,
    a_minute_of_a_cron_job,
)
