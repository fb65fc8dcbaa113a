"""A Deployment, its ReplicaSets and their pods in memory, moved by whoever drives the test.

Only what the server and the ReplicaSet controller would do; every step may lag, which is what the tests are about.
"""

from __future__ import annotations

from typing import Any

from tests.workloads.made import NOW, Object, deployment, later, pod, template

from fleetplane.workloads.deployment import sets
from fleetplane.workloads.deployment.plan import Plan, plan
from fleetplane.workloads.shared.pods import Pod


class World:
    def __init__(self, **spec: Any) -> None:
        self.deployment = deployment(**spec)
        self.sets: dict[str, Object] = {}
        self.pods: dict[str, list[Object]] = {}
        self.time = 0.0
        self.count = 0
        self.events: list[str] = []

    @property
    def total(self) -> int:
        return int(self.deployment["spec"]["replicas"])

    @property
    def fenceposts(self) -> tuple[int, int]:
        return sets.fenceposts(self.deployment)

    def set_image(self, image: str) -> None:
        self.deployment["spec"]["template"] = template(image)
        self.deployment["metadata"]["generation"] += 1

    def set_spec(self, **spec: Any) -> None:
        self.deployment["spec"] |= spec
        self.deployment["metadata"]["generation"] += 1

    def decide(self) -> Plan:
        """One pass of the Deployment controller, carried out."""
        by_uid = {one["metadata"]["uid"]: [Pod.of(each) for each in self.pods[name]] for name, one in self.sets.items()}
        made = plan(self.deployment, list(self.sets.values()), by_uid, later(self.time))
        if made.create is not None:
            self._add(made.create)
        for name, patch in made.patches.items():
            self._patch(self.sets[name], patch)
        for one in made.delete:
            name = one["metadata"]["name"]
            assert not self.pods[name]
            del self.sets[name], self.pods[name]
        if made.revision is not None:
            self.deployment["metadata"].setdefault("annotations", {})[sets.REVISION] = made.revision
        if made.status is not None:
            self.deployment["status"] = made.status
        self.events += [message for _, message in made.events]
        return made

    def _add(self, made: Object) -> None:
        name = made["metadata"]["name"]
        assert name not in self.sets
        self.count += 1
        made["metadata"] |= {
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": f"2026-03-01T12:00:{self.count:02}Z",
        }
        made["status"] = {}
        self.sets[name], self.pods[name] = made, []

    @staticmethod
    def _patch(one: Object, patch: Object) -> None:
        one["metadata"].setdefault("annotations", {}).update(patch["metadata"].get("annotations") or {})
        if patch.get("spec"):
            one["spec"] |= patch["spec"]
            one["metadata"]["generation"] += 1

    def run_pods(self, name: str, ready: bool) -> None:
        """The ReplicaSet controller makes or removes pods; new ones are ready or not."""
        one, found = self.sets[name], self.pods[name]
        wanted = one["spec"]["replicas"]
        found.sort(key=lambda each: each["status"]["conditions"][0]["status"] == "True", reverse=True)
        while len(found) > wanted:
            found.pop()
        while len(found) < wanted:
            self.count += 1
            found.append(pod(f"{name}-{self.count}", ready=ready))

    def make_ready(self, name: str, count: int) -> None:
        waiting = [one for one in self.pods[name] if one["status"]["conditions"][0]["status"] != "True"]
        for one in waiting[:count]:
            one["status"]["conditions"][0]["status"] = "True"

    def break_pod(self, name: str) -> None:
        if self.pods[name]:
            self.pods[name][0]["status"]["conditions"][0]["status"] = "False"

    def report(self, name: str) -> None:
        """The ReplicaSet controller writes its status."""
        one = self.sets[name]
        ready = sum(each["status"]["conditions"][0]["status"] == "True" for each in self.pods[name])
        one["status"] = {
            "replicas": len(self.pods[name]),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": one["metadata"]["generation"],
        }

    def settle(self, limit: int = 200) -> None:
        """Everything runs and becomes ready until a pass changes nothing."""
        for _ in range(limit):
            made = self.decide()
            for name in list(self.sets):
                self.run_pods(name, ready=True)
                self.make_ready(name, 1000)
                self.report(name)
            if made.create is None and not made.patches and not made.delete and made.revision is None:
                again = self.decide()
                if not again.patches and again.create is None and not again.delete and not again.events:
                    return
        raise AssertionError("the Deployment never settled")

    def wanted_pods(self) -> int:
        return sum(one["spec"]["replicas"] for one in self.sets.values())

    def surely_available(self) -> int:
        """Available pods that no wanted size takes away."""
        return sum(
            min(
                one["spec"]["replicas"],
                sum(each["status"]["conditions"][0]["status"] == "True" for each in self.pods[name]),
            )
            for name, one in self.sets.items()
        )

    def condition(self, type: str) -> Object:
        return next(one for one in self.deployment["status"]["conditions"] if one["type"] == type)


__all__ = ["NOW", "World"]
