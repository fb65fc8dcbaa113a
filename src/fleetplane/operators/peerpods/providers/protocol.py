"""Where VMs come from: the contract between this operator and a cloud, a hypervisor or a pool of machines.

Everything is idempotent, because an answer can be lost and an operator can die between any two steps: creating twice with
one token is creating once, deleting what is gone is success. A VM carries its tags from its first moment on, so that one
nobody remembers is found by listing. Failures say what kind they are; what to do about them is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, Protocol

from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment

CLUSTER_TAG: Final = "fleetplane.io/cluster-uid"
RECORD_TAG: Final = "fleetplane.io/peerpod-uid"

State = Literal["pending", "running", "stopped", "deleting", "deleted"]


@dataclass(frozen=True, slots=True)
class Size:
    """Zero means: not asked for. ``instance_type``, where given, is taken as it is."""

    vcpus: int = 0
    memory_mib: int = 0
    gpus: int = 0
    instance_type: str = ""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A VM to be made. ``token`` (at most 64 characters) stands for the wish: two wishes have two tokens."""

    token: str
    name: str
    tags: Mapping[str, str]
    size: Size = Size()
    image: str = ""
    user_data: str = ""
    network_namespace: str = ""
    """For a provider on this very machine: path of the network namespace the VM is put into, with ``addresses`` and ``mac``."""
    addresses: tuple[str, ...] = ()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A VM as its provider knows it."""

    id: str
    state: State
    token: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    size: Size = Size()

    @property
    def is_gone(self) -> bool:
        return self.state == "deleted"


class Failure(Enum):
    """Why a provider did not do it; the value is the reason of a condition."""

    CREDENTIALS = "CredentialsRefused"
    QUOTA = "QuotaExceeded"
    THROTTLED = "Throttled"
    TIMED_OUT = "ProviderTimedOut"
    UNAVAILABLE = "ProviderUnavailable"
    REFUSED = "RequestRefused"
    UNSUPPORTED = "NotSupported"


class ProviderError(Exception):
    """``message`` is one sentence for people and holds no secrets; ``retry_after`` is the provider's wish in seconds."""

    def __init__(self, failure: Failure, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.retry_after = retry_after


class Provider(Protocol):
    """Raises ProviderError; ``TIMED_OUT`` leaves open whether it was done."""

    async def create(self, spec: VmSpec) -> Instance:
        """The VM of this token, made if there is none."""

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        """The VM with this id, or of this token; ``None`` when there is none (any more)."""

    async def delete(self, id: str) -> None:
        """Begin to delete. It is gone when ``describe`` says so. Gone already is success."""

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        """All VMs with these tags that are not gone."""

    async def resize(self, id: str, size: Size) -> Instance:
        """Give the VM another size; ``UNSUPPORTED`` where that takes a new one."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a provider may use besides its settings. ``namespace`` is where those were found."""

    client: Client
    environment: Environment
    namespace: str


ProviderFactory = Callable[[Mapping[str, str], Surroundings], Provider]
"""From settings (ConfigMap and Secret, see ``adaptor``). Raises ProviderError when they are not enough. No I/O."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    name: str
    vcpus: int
    memory_mib: int
    gpus: int = 0


def best_fit(types: Sequence[InstanceType], size: Size) -> InstanceType | None:
    """The smallest type that has at least this, by (gpus, memory, vcpus); types with GPUs only for who wants some."""
    fitting = [
        one
        for one in types
        if one.vcpus >= size.vcpus
        and one.memory_mib >= size.memory_mib
        and (one.gpus >= size.gpus if size.gpus else not one.gpus)
    ]
    return min(fitting, key=lambda one: (one.gpus, one.memory_mib, one.vcpus, one.name), default=None)
