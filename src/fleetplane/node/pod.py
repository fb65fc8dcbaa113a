"""One pod's specification as the node reads it: parsed once per change, then asked many times.

A view, not a model: raw container specs stay plain JSON, and what the node does not use is not looked at. Tolerant of
missing fields (static pods come from files without defaulting), so the defaults the API server would fill in stand
here once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object

CONFIG_SOURCE: Final = "kubernetes.io/config.source"
CONFIG_HASH: Final = "kubernetes.io/config.hash"
CONFIG_MIRROR: Final = "kubernetes.io/config.mirror"
PAUSED: Final = "node.fleetplane.io/paused"
"""Annotation: ``true`` freezes the pod's containers, anything else lets them go on."""
ONE_ACTIVE: Final = "node.fleetplane.io/one-active"
"""Annotation: names of containers of which one runs and the others stand by, frozen; see ``leading``."""
HELD: Final = "node.fleetplane.io/held-containers"
"""Annotation: names of containers that are stopped, and not started until they are named no more."""
SELF_FENCING: Final = "node.fleetplane.io/self-fencing-seconds"
GROUP: Final = "node.fleetplane.io/group"
"""Annotations that promise something for when the control plane is gone; see ``fencing``."""

DEFAULT_GRACE_SECONDS: Final = 30


class Role(Enum):
    """What a container is to its pod. A sidecar is an init container that is always restarted (KEP-753)."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod. ``policy`` is its effective restart policy, ``rules`` its exit-code rules (KEP-5307)."""

    name: str
    role: Role
    spec: Object
    policy: str
    rules: tuple[tuple[str, frozenset[int]], ...] = ()

    @property
    def image(self) -> str:
        return str(self.spec.get("image") or "")

    def restarts_after(self, exit_code: int) -> bool:
        """Whether the container is started again after it ended with this code."""
        for operator, codes in self.rules:
            if (exit_code in codes) == (operator == "In"):
                return True
        return self.policy == "Always" or (self.policy == "OnFailure" and exit_code != 0)

    @property
    def hash(self) -> str:
        """Digest of what cannot change while the container lives."""
        return hashlib.sha256(f"{self.name}\0{self.image}".encode()).hexdigest()[:16]

    def probe(self, kind: str) -> Object | None:
        """The ``liveness``, ``readiness`` or ``startup`` probe."""
        found = self.spec.get(f"{kind}Probe")
        return found if isinstance(found, dict) else None

    def hook(self, which: str) -> Object | None:
        """The ``postStart`` or ``preStop`` handler."""
        found = (self.spec.get("lifecycle") or {}).get(which)
        return found if isinstance(found, dict) else None

    @property
    def pull_policy(self) -> str:
        if chosen := self.spec.get("imagePullPolicy"):
            return str(chosen)
        name = self.image.rpartition("/")[2]
        tagged = ":" in name or "@" in name
        return "IfNotPresent" if tagged and not name.endswith(":latest") else "Always"


class PodView:
    """See the module. Immutable: a changed pod is a new view."""

    def __init__(self, obj: Object, cluster: str = "root") -> None:
        self.object = obj
        self.cluster = cluster
        self.spec: Object = obj.get("spec") or {}
        self.uid = objects.uid(obj)
        self.name = objects.name(obj)
        self.namespace = objects.namespace(obj)
        self.annotations: Mapping[str, str] = objects.annotations(obj)
        self.restart_policy = str(self.spec.get("restartPolicy") or "Always")
        self.containers = self._read_containers()
        self.by_name = {container.name: container for container in self.containers}

    def _read_containers(self) -> tuple[ContainerView, ...]:
        read = [self._init(spec) for spec in self.spec.get("initContainers") or []]
        read += [self._main(spec) for spec in self.spec.get("containers") or []]
        read += [
            ContainerView(str(spec.get("name") or ""), Role.EPHEMERAL, spec, "Never")
            for spec in self.spec.get("ephemeralContainers") or []
        ]
        return tuple(read)

    def _init(self, spec: Object) -> ContainerView:
        name, own = str(spec.get("name") or ""), spec.get("restartPolicy")
        if own == "Always":
            return ContainerView(name, Role.SIDECAR, spec, "Always", _rules(spec))
        policy = str(own or ("Never" if self.restart_policy == "Never" else "OnFailure"))
        return ContainerView(name, Role.INIT, spec, policy, _rules(spec))

    def _main(self, spec: Object) -> ContainerView:
        policy = str(spec.get("restartPolicy") or self.restart_policy)
        return ContainerView(str(spec.get("name") or ""), Role.MAIN, spec, policy, _rules(spec))

    def with_role(self, *roles: Role) -> tuple[ContainerView, ...]:
        return tuple(container for container in self.containers if container.role in roles)

    @cached_property
    def main(self) -> tuple[ContainerView, ...]:
        return self.with_role(Role.MAIN)

    @cached_property
    def init(self) -> tuple[ContainerView, ...]:
        """Init containers and sidecars, in the order they are started."""
        return self.with_role(Role.INIT, Role.SIDECAR)

    @property
    def key(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def deleting(self) -> bool:
        return objects.is_deleting(self.object)

    @property
    def grace_seconds(self) -> int:
        """How long its containers may take to stop: what the deletion asked for, else what the pod says."""
        asked = objects.metadata(self.object).get("deletionGracePeriodSeconds")
        if asked is None:
            asked = self.spec.get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE_SECONDS if asked is None else max(0, int(asked))

    @property
    def active_deadline_seconds(self) -> int | None:
        found = self.spec.get("activeDeadlineSeconds")
        return None if found is None else int(found)

    @property
    def host_network(self) -> bool:
        return bool(self.spec.get("hostNetwork"))

    @property
    def service_account(self) -> str:
        return str(self.spec.get("serviceAccountName") or "default")

    @property
    def mirror(self) -> bool:
        """Whether the API object only mirrors a static pod of its node."""
        return CONFIG_MIRROR in self.annotations

    @property
    def static(self) -> bool:
        return CONFIG_SOURCE in self.annotations and self.annotations[CONFIG_SOURCE] != "api"

    @property
    def paused(self) -> bool:
        return self.annotations.get(PAUSED) == "true"

    @cached_property
    def one_active(self) -> tuple[str, ...]:
        """Main containers of which one may run, the preferred first; fewer than two are none."""
        named = self._named(ONE_ACTIVE)
        main = {container.name for container in self.main}
        found = tuple(name for name in named if name in main)
        return found if len(found) > 1 else ()

    @cached_property
    def held(self) -> frozenset[str]:
        return frozenset(self._named(HELD))

    def _named(self, annotation: str) -> list[str]:
        text = self.annotations.get(annotation) or ""
        return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))

    @property
    def shares_processes(self) -> bool:
        """Whether a container that ended may leave processes behind."""
        return bool(self.spec.get("hostPID") or self.spec.get("shareProcessNamespace"))

    @property
    def observed_started_at(self) -> Any:
        """``status.startTime`` as the API object has it, parsed, or None."""
        text = (self.object.get("status") or {}).get("startTime")
        try:
            return parse_timestamp(text) if text else None
        except ValueError:
            return None


def _rules(spec: Object) -> tuple[tuple[str, frozenset[int]], ...]:
    found = []
    for rule in spec.get("restartPolicyRules") or []:
        codes = rule.get("exitCodes") or {}
        if rule.get("action") == "Restart" and codes.get("operator") in {"In", "NotIn"}:
            found.append((codes["operator"], frozenset(int(code) for code in codes.get("values") or [])))
    return tuple(found)
