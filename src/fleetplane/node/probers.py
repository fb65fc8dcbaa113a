"""Who asks: a prober for real containers, and one for simulated ones that answers by rule."""

from __future__ import annotations

from fleetplane.model.objects import Object
from fleetplane.node.asking import NetworkAsker
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.probes import Answer, ProbeKind, Timing
from fleetplane.node.runtime import ContainerRuntime, ContainerState
from fleetplane.node.simulated_rules import Rule, rule


class RuntimeProber:
    """Runs exec probes in the container and the others over the network."""

    steady = False

    def __init__(self, runtime: ContainerRuntime, asker: NetworkAsker) -> None:
        self._runtime = runtime
        self._asker = asker

    async def ask(
        self,
        kind: ProbeKind,
        probe: Object,
        pod: PodView,
        container: ContainerView,
        state: ContainerState,
        addresses: tuple[str, ...],
    ) -> Answer:
        timeout = float(Timing.of(probe).timeout)
        if (command := probe.get("exec")) is not None:
            return await self._exec(state.id, [str(word) for word in command.get("command") or []], timeout)
        if (get := probe.get("httpGet")) is not None:
            return await self._asker.http(get, container, addresses, timeout)
        if (socket := probe.get("tcpSocket")) is not None:
            return await self._asker.tcp(socket, container, addresses, timeout)
        if (grpc := probe.get("grpc")) is not None:
            return await self._asker.grpc(grpc, container, addresses, timeout)
        return Answer(False, "missing probe handler")

    async def _exec(self, container_id: str, command: list[str], timeout: float) -> Answer:
        try:
            result = await self._runtime.exec(container_id, command, timeout)
        except TimeoutError:
            return Answer(False, f"command timed out: {' '.join(command)!r} timed out after {timeout:g}s")
        return Answer(result.exit_code == 0, result.output.decode(errors="replace"))


class SimulatedProber:
    """Healthy, unless one of the pod's annotations says otherwise."""

    steady = True
    _RULES = {"startup": Rule.STARTED, "liveness": Rule.LIVE, "readiness": Rule.READY}

    async def ask(
        self,
        kind: ProbeKind,
        probe: Object,
        pod: PodView,
        container: ContainerView,
        state: ContainerState,
        addresses: tuple[str, ...],
    ) -> Answer:
        if rule(pod.annotations, self._RULES[kind], container.name) == "false":
            return Answer(False, "simulated failure")
        return Answer(True)
