"""What went wrong in the operator of 2023, one test for each: named for how it should be.

Numbers are those of the catalogue of its defects. 12 and 13 (addresses) are tested with the pools, in
``tests/operators/network`` and ``test_addresses``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.operators.vclusters.kubeadm import TOKEN, FakeNodes
from tests.operators.vclusters.stage import Stage, staged
from tests.operators.vclusters.test_pods_mode import IMAGE, OPEN, nodes

from fleetplane.client.snapshot import ObjectKey
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PODS, SECRETS, SERVICES, STATEFUL_SETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.operators.vclusters import machines, plan, steps
from fleetplane.operators.vclusters.admission import problems, warnings
from fleetplane.operators.vclusters.execs import PodMachines
from fleetplane.operators.vclusters.images import minor_of, skew_problem, upgrade_problem
from fleetplane.operators.vclusters.kinds import DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, STOPPED, Vk8s
from fleetplane.operators.vclusters.observing import reservation_of
from fleetplane.operators.vclusters.plan import NodeWanted, Observed, PodSeen, Record, Step, Wanted
from fleetplane.operators.vclusters.reconcile import _node_pod
from fleetplane.operators.vclusters.steps import Outcome, Site, StepFailed, StepPending, Steps
from fleetplane.testing import run_virtually

SITE = Site("default", "m", "10.244.0.0/16", "10.96.0.0/12", 21)
WANTED = Wanted("one", (NodeWanted("m", "master", IMAGE), NodeWanted("w", "worker", IMAGE)))
ALL_RUN = {name: PodSeen("Running", uid=f"uid-{name}", image=IMAGE) for name in "mw"}
IMAGES = Path(__file__).parents[3] / "deploy" / "images"


def done(*except_for: Step, wanted: Wanted = WANTED, image: str = IMAGE) -> dict[Step, Record]:
    """Everything is installed, but for these."""
    steps_ = [one for chain in plan.chains(wanted) for one in chain if one.name != plan.UPGRADED]
    return {
        one: Record("Done", 1, 0.0, f"uid-{one.node or 'm'}", 1, "", "", image)
        for one in steps_
        if one not in except_for
    }


def take(fake: FakeNodes, step: Step, site: Site = SITE, before: Record | None = None, *, anew: bool = False) -> None:
    run_virtually(Steps(fake).take(step, site, before or Record(), 0.0, anew=anew))


# 1 -- deleting


def test_01_a_cluster_that_is_being_deleted_takes_no_more_steps() -> None:
    decision = plan.plan(replace(WANTED, deleting=True), Observed(ALL_RUN, {}, 0.0))
    assert (decision.phase, decision.steps, decision.restart) == ("Terminating", (), "")


# 2 -- pausing


@staged()
async def test_02_many_paused_clusters_keep_nobody_waiting(stage: Stage) -> None:
    for number in range(30):
        node = {"name": f"p{number}", "image": IMAGE, "role": "master"}
        await stage.make(f"paused-{number}", annotations={STOPPED: "true"}, nodes=[node])
    before = stage.environment.monotonic()
    await stage.make("one", annotations=OPEN, nodes=nodes())

    await stage.phase("one", "Running")

    assert stage.environment.monotonic() - before < 60
    assert (await stage.status("paused-29"))["phase"] == "Paused"


# 3, 4 -- failures and restarts in the middle


def test_03_when_a_later_step_fails_only_that_step_is_taken_again() -> None:
    failed = Step(plan.RESERVED, "m")
    records = done(failed) | {failed: Record("Retrying", 1, 0.0, "uid-m", 1, "it did not work", "", "")}
    decision = plan.plan(WANTED, Observed(ALL_RUN, records, 10.0))
    assert decision.steps == (failed,)


def test_04_a_control_plane_that_has_begun_is_waited_for_not_begun_again() -> None:
    fake = FakeNodes(begun={"m-0"})
    with pytest.raises(StepPending):
        take(fake, Step(plan.CONTROL_PLANE, "m"), before=Record("Running", 1, 0.0, "uid", 1))
    assert fake.count("init-kubernetes.sh") == 0


def test_04_a_control_plane_that_came_up_meanwhile_is_done() -> None:
    fake = FakeNodes(begun={"m-0"}, up={"m-0"})
    take(fake, Step(plan.CONTROL_PLANE, "m"), before=Record("Running", 1, 0.0, "uid", 1))
    assert fake.count("init-kubernetes.sh") == 0


# 5 -- late workers


def test_05_a_worker_that_runs_late_joins_late() -> None:
    late = {**ALL_RUN, "w": PodSeen("Pending")}
    records = {step: one for step, one in done().items() if step.node != "w"}
    assert not any(step.node == "w" for step in plan.plan(WANTED, Observed(late, records, 0.0)).steps)
    assert plan.plan(WANTED, Observed(ALL_RUN, records, 0.0)).steps == (Step(plan.NODE_INIT, "w"),)


# 6 -- scaling; told on a stage in test_pods_mode


@staged()
async def test_06_a_node_that_is_removed_leaves_its_cluster_first(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(workers=1))
    await stage.phase("one", "Running")

    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=0)}}, "default")
    await stage.gone(STATEFUL_SETS, "w0")
    await stage.gone(PERSISTENT_VOLUME_CLAIMS, "vk8s-backup-w0-0")
    await stage.phase("one", "Running")

    said = [words[2] if words[0] == "kubectl" else words[0] for pod, words in stage.machines.log]
    order = [said.index("drain"), len(said) - 1 - said[::-1].index("delete"), said.index("./reset-kubernetes.sh")]
    assert order == sorted(order), "drained, taken out, reset"
    assert stage.machines.count("reset-kubernetes.sh") == 1
    untaints = [words for _, words in stage.machines.log if words[-1] == "node-role.kubernetes.io/master-"]
    assert len(untaints) == 2, "a master alone carries the workload again"


# 7, 8 -- what changes the phase


def test_07_a_failure_stays_one_through_pausing_and_resuming() -> None:
    records = done() | {Step(plan.RESERVED, "m"): Record("Failed", 5, 0.0, "uid-m", 1, "why", "", "")}
    assert plan.plan(WANTED, Observed(ALL_RUN, records, 0.0)).phase == "Fail"
    assert plan.plan(replace(WANTED, paused=True), Observed(ALL_RUN, records, 0.0)).phase == "Paused"
    assert plan.plan(WANTED, Observed(ALL_RUN, records, 0.0)).message == "error on allocating resource"


def test_07_asking_for_a_restart_is_asking_to_try_again() -> None:
    records = done() | {Step(plan.RESERVED, "m"): Record("Failed", 5, 0.0, "uid-m", 1, "why", "", "")}
    decision = plan.plan(replace(WANTED, request="now"), Observed(ALL_RUN, records, 0.0))
    assert decision.steps == (Step(plan.RESERVED, "m"),)


def test_08_losing_the_network_is_no_reason_not_to_run() -> None:
    assert plan.plan(replace(WANTED, network=False), Observed(ALL_RUN, done(), 0.0)).phase == "Running"


# 9, 15 -- refused at once


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"mode": "pods", "nodes": [{"name": "a", "image": "i", "role": "worker"}]}, "spec.nodes"),
        ({"nodes": [{"name": n, "image": "i", "role": "master"} for n in "ab"]}, "spec.nodes"),
        ({"nodes": [{"name": "a", "image": "i", "role": "king"}]}, "spec.nodes[0].role"),
        ({"nodes": [{"name": "a", "image": "i", "role": r} for r in ("master", "worker")]}, "spec.nodes[1].name"),
        ({"nodes": nodes(0), "ports": [{"port": 30001, "targetPort": "http"}]}, "spec.ports[0].targetPort"),
        ({"nodes": nodes(0), "kubeflow": {"version": "xv1.4.0y"}}, "spec.kubeflow.version"),
        ({"nodes": nodes(0), "kubeflow": {"version": "v1.4.0"}}, "spec.ports"),
        ({"nodes": [{"name": "a", "image": "kink:latest", "role": "master"}], "kubeflow": {"version": "v1.4.0"}}, "spec.nodes[0].image"),
        ({"nodes": [{**nodes(0)[0], "resources": {"limits": {"cpu": "much"}}}]}, "spec.nodes[0].resources.limits[cpu]"),
        ({"nodes": nodes(0), "accessPodPort": 22}, "spec.accessPodPort"),
    ],
)  # fmt: skip
def test_09_and_15_what_cannot_work_is_refused_when_it_is_written(spec: Object, where: str) -> None:
    assert where in {one.field for one in problems(spec)}


@pytest.mark.parametrize(("tag", "minor"), [("v1.21-ubuntu", 21), ("v1.9", None), ("v1.210", None), ("latest", None)])
def test_15_a_tag_that_tells_no_version_is_no_accident(tag: str, minor: int | None) -> None:
    assert minor_of(f"10.0.0.1:5000/kink:{tag}") == minor


def test_upgrades_go_one_version_at_a_time_and_workers_never_first() -> None:
    old, new, far = (f"r/kink:v1.{minor}" for minor in (21, 22, 23))
    assert (upgrade_problem(old, new), upgrade_problem(old, "r/kink:latest")) == ("", "")
    assert "one minor version" in upgrade_problem(old, far)
    assert "cannot be taken back" in upgrade_problem(new, old)
    assert "upgrade the master first" in skew_problem(old, new)
    assert "at least v1.21" in skew_problem(far, "r/kink:v1.20")


# 10 -- ports


@staged()
async def test_10_changed_ports_are_applied(stage: Stage) -> None:
    ports = [{"name": "web", "port": 30011, "targetPort": 30011, "nodePort": 30011}]
    await stage.make("one", annotations=OPEN, nodes=nodes(0), ports=ports, accessPodImage="a", accessPodPort=30022)
    await stage.phase("one", "Running")

    more = [*ports, {"name": "api", "port": 30012, "targetPort": 30012, "nodePort": 30012}]
    await stage.client.patch(Vk8s, "one", {"spec": {"ports": more, "accessPodPort": 30023}}, "default")

    async def published() -> bool:
        found = [one["nodePort"] for one in (await stage.find(SERVICES, "one"))["spec"]["ports"]]
        access = [one["nodePort"] for one in (await stage.find(SERVICES, "one-access-svc"))["spec"]["ports"]]
        return (sorted(found), access) == ([30011, 30012], [30023])

    await stage.until(published)


@staged()
async def test_10_a_port_that_somebody_else_has_is_told_before_anything_is_made(stage: Stage) -> None:
    spec = {"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30011}]}
    await stage.client.create(SERVICES, {"metadata": {"name": "theirs"}, "spec": spec}, "default")
    await stage.make("one", annotations=OPEN, nodes=nodes(0), ports=[{"port": 30011, "nodePort": 30011}])

    status = await stage.phase("one", "Waiting")

    async def told() -> str:
        conditions = {one["type"]: one for one in (await stage.status("one")).get("conditions") or ()}
        return str((conditions.get("PortsAvailable") or {}).get("message") or "")

    assert await stage.until(told) == "NodePort 30011/TCP belongs to Service theirs"
    assert not await stage.find(STATEFUL_SETS, "m")
    assert status["message"] == "creating node"

    await stage.client.delete(SERVICES, "theirs", "default")
    await stage.phase("one", "Running")


# 11 -- quantities


def test_11_what_a_node_offers_is_never_more_than_its_limits() -> None:
    host = {"status": {"capacity": {"cpu": "7500m", "memory": "16000000Ki", "ephemeral-storage": "100Gi"}}}
    limits = {"cpu": "500m", "memory": "1500M", "ephemeral-storage": "10Gi"}
    node = Vk8s.view(
        {"spec": {"nodes": [{"name": "a", "role": "master", "resources": {"limits": limits}}]}}
    ).spec.nodes[0]
    text = reservation_of(node, host) or ""
    assert 'cpu: "7000m"' in text
    kept = int(re.findall(r'memory: "(\d+)Mi"', text)[0]) << 20
    assert 0 <= 1_500_000_000 - (16_000_000 * 1024 - kept) < 1 << 20
    assert f'ephemeral-storage: "{90 << 10}Mi"' in text


def test_11_without_limits_nothing_is_reserved() -> None:
    node = Vk8s.view({"spec": {"nodes": [{"name": "a", "role": "master"}]}}).spec.nodes[0]
    assert reservation_of(node, {"status": {"capacity": {"cpu": "8", "memory": "16Gi"}}}) == ""


def test_11_a_node_that_comes_to_another_host_reserves_anew() -> None:
    fake = FakeNodes(configs={"m-0": 'kind: K\nsystemReserved:\n  cpu: "1000m"\nmaxPods: 9\n'})
    take(fake, Step(plan.RESERVED, "m"), replace(SITE, reservations={"m": 'systemReserved:\n  cpu: "3000m"\n'}))
    assert fake.configs["m-0"] == 'kind: K\nmaxPods: 9\nsystemReserved:\n  cpu: "3000m"\n'


# 14 -- Kubeflow


@pytest.mark.parametrize("says", ["False", "", "Error from server (NotFound)"])
def test_14_kubeflow_is_ready_only_when_it_says_so(says: str) -> None:
    with pytest.raises(StepPending):
        take(FakeNodes(kubeflow_says=says), Step(plan.KUBEFLOW_READY))


def test_14_kubeflow_that_never_runs_is_a_failure_in_the_end() -> None:
    begun = Record("Running", 1, -4000.0, "uid", 1)
    with pytest.raises(StepFailed, match="Kubeflow does not run"):
        take(FakeNodes(kubeflow_says="False"), Step(plan.KUBEFLOW_READY), before=begun)


# 16, 21 -- secrets


def test_16_and_21_a_password_is_no_word_of_a_command() -> None:
    async def password() -> str:
        return "it's; $(rm -rf /)"

    fake = FakeNodes()
    take(fake, Step(plan.KUBEFLOW), replace(SITE, kubeflow_version="v1.4.0", password=password))
    assert fake.password == b"it's; $(rm -rf /)\n"
    assert "rm -rf" not in str(fake.log)


def test_16_an_image_whose_script_takes_passwords_as_words_is_not_given_one() -> None:
    with pytest.raises(StepFailed, match="newer image") as failure:
        take(FakeNodes(old_scripts=True), Step(plan.KUBEFLOW))
    assert failure.value.permanent


def test_21_a_join_token_is_no_word_of_a_command_is_revoked_and_never_told() -> None:
    fake = FakeNodes()
    take(fake, Step(plan.JOINED, "w"))
    assert TOKEN not in str(fake.log)
    assert not fake.tokens
    assert TOKEN not in steps.redacted(f"could not join with {TOKEN}")
    assert steps.redacted("password=secret1 refused") == "password=<hidden> refused"


# 17 -- versions


@pytest.mark.parametrize(("minor", "key"), [(21, "master"), (24, "control-plane"), (None, "master")])
def test_17_taints_go_by_the_version(minor: int | None, key: str) -> None:
    fake = FakeNodes()
    take(fake, Step(plan.TAINT), replace(SITE, minor=minor))
    assert any(f"node-role.kubernetes.io/{key}:NoSchedule" in words for _, words in fake.log)


# 18 -- what images are made of


def test_18_recipes_name_versions_and_digests_never_a_branch() -> None:
    recipes = [one for one in IMAGES.rglob("*") if one.is_file()]
    text = "\n".join(one.read_text() for one in recipes)
    assert not re.findall(r"https?://\S*/(?:master|main|latest)/\S*", text)
    recipe = (IMAGES / "kubeadm" / "Containerfile").read_text()
    fetched = re.findall(r"^ *fetch (\S+) (\S+) \S+; ", recipe, re.MULTILINE)
    assert len(fetched) == 5
    assert all("v${" in path and re.fullmatch(r"\$\w+_SHA256", digest) for path, digest in fetched)
    assert recipe.count("curl") == 2, "one package, one place that fetches"


# 19 -- status


@staged()
async def test_19_conditions_are_kept_by_type_however_often_the_phase_changes(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0))
    await stage.phase("one", "Running")
    for turn in range(3):
        for value, phase in (("true", "Paused"), (None, "Running")):
            await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: value}}}, "default")
            await stage.phase("one", phase)
        types = [one["type"] for one in (await stage.status("one"))["conditions"]]
        assert len(types) == len(set(types)) <= 12, turn


# 20 -- nothing is swallowed


def test_20_a_worker_that_cannot_join_is_told_of() -> None:
    fake = FakeNodes(fails=lambda pod, command: command == "kubeadm")
    with pytest.raises(StepFailed, match="no join command"):
        take(fake, Step(plan.JOINED, "w"))


def test_20_a_node_whose_limits_cannot_be_read_is_not_called_done() -> None:
    with pytest.raises(StepFailed):
        take(FakeNodes(), Step(plan.RESERVED, "m"), replace(SITE, reservations={"m": 'systemReserved:\n  cpu: "1m"\n'}))


# 22 -- what others put there


@staged()
async def test_22_labels_and_annotations_of_others_stay(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0), accessPodImage="a", accessPodPort=30022)
    await stage.phase("one", "Running")
    theirs = {"metadata": {"annotations": {"cni.example.org/status": "up"}, "labels": {"theirs": "yes"}}}
    for resource, name in ((PODS, "one-access-pod"), (SERVICES, "one-access-svc"), (STATEFUL_SETS, "m")):
        await stage.client.patch(resource, name, theirs, "default")

    await stage.client.patch(Vk8s, "one", {"metadata": {"labels": {"update": "test"}}}, "default")
    await stage.until(lambda: labelled(stage, "m", "update"))

    for resource, name in ((PODS, "one-access-pod"), (SERVICES, "one-access-svc"), (STATEFUL_SETS, "m")):
        meta = (await stage.find(resource, name))["metadata"]
        assert meta["annotations"]["cni.example.org/status"] == "up"
        assert meta["labels"]["theirs"] == "yes"


async def labelled(stage: Stage, name: str, key: str) -> bool:
    return key in ((await stage.find(STATEFUL_SETS, name))["metadata"].get("labels") or {})


# 23 -- who is woken


def test_23_a_nodes_pod_wakes_its_cluster_and_no_other() -> None:
    def woken(labels: dict[str, str]) -> list[Any]:
        return list(_node_pod(SimpleNamespace(key=ObjectKey("root", "default", "m-0"), labels=labels)))  # type: ignore[arg-type]

    assert [one.name for one in woken({"app": "vk8s", "clusterName": "one"})] == ["one"]
    assert woken({"clusterName": "one"}) == []


# 24 -- volumes


@pytest.mark.parametrize(("policy", "left"), [("delete", False), ("retain", True)])
def test_24_volumes_go_or_stay_as_the_policy_says(policy: str, left: bool) -> None:
    async def story(stage: Stage) -> None:
        await stage.make("one", annotations=OPEN, nodes=nodes(0), volumePolicy=policy)
        await stage.phase("one", "Running")
        assert await stage.find(PERSISTENT_VOLUME_CLAIMS, "vk8s-backup-m-0")
        await stage.client.delete(Vk8s, "one", "default")
        await stage.gone(Vk8s, "one")
        await asyncio.sleep(30)
        assert bool(await stage.find(PERSISTENT_VOLUME_CLAIMS, "vk8s-backup-m-0")) == left

    staged()(story)()


# 25 -- commands end


class Silent:
    """An API that never answers."""

    async def raw(self, *_: Any, **__: Any) -> bytes:
        await asyncio.sleep(1e9)
        return b""


def test_25_a_command_nobody_answers_ends_with_its_time() -> None:
    machines_ = PodMachines(Silent())  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        run_virtually(machines_.run("default", "m-0", ["true"], timeout=10))


@staged()
async def test_25_deleting_does_not_wait_for_what_is_being_installed(stage: Stage) -> None:
    class Slow(FakeNodes):
        ended = 0

        async def run(self, namespace: str, pod: str, command: Sequence[str], **rest: Any) -> Outcome:
            try:
                await asyncio.sleep(1e6)
            finally:
                Slow.ended += 1
            return Outcome(0)

    stage.machines.run = Slow().run  # type: ignore[method-assign]
    await stage.make("one", annotations=OPEN, nodes=nodes(0))
    await stage.phase("one", "Installing")
    before = stage.environment.monotonic()

    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    assert stage.environment.monotonic() - before < 60
    assert Slow.ended == 1, "the command is cancelled, not forgotten"


# 26 -- the access pod


@staged()
async def test_26_the_access_pod_has_its_kubeconfig_and_keys_from_secrets_and_no_password(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0), accessPodImage="a", accessPodPort=30022)
    await stage.phase("one", "Running")

    pod = await stage.find(PODS, "one-access-pod")
    mounted = {one["name"]: one["secret"]["secretName"] for one in pod["spec"]["volumes"] if "secret" in one}
    assert mounted == {"kubeconfig": "one-kubeconfig", "keys": "one-access-keys"}
    assert await stage.find(SECRETS, "one-kubeconfig")
    assert "password" not in str(pod).lower()

    await stage.client.delete(PODS, "one-access-pod", "default")

    async def again() -> bool:
        found = await stage.find(PODS, "one-access-pod")
        return bool(found) and found["metadata"]["uid"] != pod["metadata"]["uid"]

    await stage.until(again)


# 27 -- networks


def test_27_networks_are_private_unless_somebody_wants_others() -> None:
    assert not list(warnings({"kubernetes": {"podNetworkCidr": DEFAULT_POD_CIDR, "serviceCidr": DEFAULT_SERVICE_CIDR}}))
    assert "public address space" in next(iter(warnings({"kubernetes": {"podNetworkCidr": "80.244.0.0/16"}})))
    assert [one.field for one in problems({"kubernetes": {"podNetworkCidr": "10.96.0.0/16"}})] == ["spec.kubernetes"]


# -- restarts, upgrades


@staged()
async def test_a_bad_image_is_replaced_though_its_pod_never_ran(stage: Stage) -> None:
    missing = [{**nodes(0)[0], "image": "registry:5000/kink:missing"}]
    await stage.make("one", annotations=OPEN, nodes=missing)
    await stage.phase("one", "Waiting")
    await asyncio.sleep(20)

    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(0)}}, "default")

    await stage.phase("one", "Running")


@staged()
async def test_an_upgrade_takes_the_master_first_and_each_node_runs_its_script_once(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(1))
    await stage.phase("one", "Running")

    newer = [{**one, "image": "registry:5000/kink:v1.22-ubuntu"} for one in nodes(1)]
    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": newer}}, "default")

    async def upgraded() -> bool:
        images = [
            (await stage.find(PODS, name)).get("spec", {}).get("containers", [{}])[0].get("image")
            for name in ("m-0", "w0-0")
        ]
        return set(images) == {"registry:5000/kink:v1.22-ubuntu"} and (await stage.status("one"))["phase"] == "Running"

    await stage.until(upgraded)
    said = [(pod, words[1]) for pod, words in stage.machines.log if words[0] == "./upgrade-kubernetes.sh"]
    assert said == [("m-0", "master"), ("w0-0", "worker")]
    assert stage.machines.inits == {"m-0": 1}


@staged()
async def test_an_upgrade_over_two_versions_is_refused(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0))
    far = [{**nodes(0)[0], "image": "registry:5000/kink:v1.23-ubuntu"}]
    with pytest.raises(ApiError, match="one minor version at a time"):
        await stage.client.patch(Vk8s, "one", {"spec": {"nodes": far}}, "default")


def test_the_pods_image_is_pulled_unless_it_is_of_the_hosts_own_storage() -> None:
    def policy(image: str) -> str:
        vcluster = Vk8s.view(
            {"metadata": {"name": "one"}, "spec": {"nodes": [{"name": "m", "image": image, "role": "master"}]}}
        )
        made = machines.stateful_set(vcluster, vcluster.spec.nodes[0], [], image, running=True)
        return str(made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"])

    assert (policy("r:5000/kink:v1.21"), policy("localhost/vnode:1")) == ("Always", "IfNotPresent")
