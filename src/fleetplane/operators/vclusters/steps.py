"""What each step of an installation does inside a node: probe, run, and when to give up.

The node image's contract (docs/vclusters.md) is a handful of scripts and ``kubectl``, ``kubeadm``, ``systemctl``. Commands
are lists of words, never shell strings; secrets go in through stdin, never as words, and never come out in messages.

``kubeadm init`` is run at most once for a control plane: before it comes a look whether one is there or has begun, and
one that has begun is waited for, because the command outlives whoever started it; a lock in the node tells whether it
still runs. Only somebody asking anew, by a changed spec or a restart, resets a half-made control plane.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson

from fleetplane.model.errors import ApiError
from fleetplane.operators.vclusters import plan
from fleetplane.operators.vclusters.machines import pod_name
from fleetplane.operators.vclusters.plan import Record, Step

ADMIN_CONF: Final = "/etc/kubernetes/admin.conf"
CA: Final = "/etc/kubernetes/pki/ca.crt"
KUBELET_CONF: Final = "/var/lib/kubelet/config.yaml"
KUBELET_ACCOUNT: Final = "/etc/kubernetes/kubelet.conf"
RESTORED: Final = "/vk8s-backup/restored"
INIT_SECONDS: Final = 1200.0
READY_SECONDS: Final = 600.0
KUBEFLOW_SECONDS: Final = 3600.0
SHORT: Final = 60.0
_JOIN: Final = re.compile(
    r"kubeadm join (?P<server>[A-Za-z0-9.\-\[\]:]{3,280}) +--token (?P<token>[a-z0-9]{6}\.[a-z0-9]{16})"
    r" +(?:\\\s*)?--discovery-token-ca-cert-hash (?P<hash>sha256:[0-9a-f]{64})"
)


class StepFailed(Exception):
    """``permanent``: trying again would not help until something changes."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class StepPending(Exception):
    """It goes on by itself; look again in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """``data`` is the output as it was, ``stdout`` what it says as text."""

    code: int
    stdout: str = ""
    stderr: str = ""
    data: bytes = b""


class Machines(Protocol):
    """How commands get into nodes. Raises ApiError where a node cannot be reached, TimeoutError after ``timeout``."""

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = SHORT
    ) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What the steps of one cluster need to know."""

    namespace: str
    master: str
    pod_cidr: str
    service_cidr: str
    minor: int | None = None
    master_address: str = ""
    registry: str = ""
    kubeflow_version: str = ""
    kubeflow_email: str = ""
    kubeflow_port: int = 0
    password: Callable[[], Awaitable[str]] | None = None
    save_kubeconfig: Callable[[str], Awaitable[None]] | None = None
    restore: Callable[[Machines, str, str], Awaitable[None]] | None = None
    """Brings the snapshot the cluster begins with into a pod, as a file. Raises StepFailed."""
    reservations: Mapping[str, str | None] = field(default_factory=dict)
    """By node: the text that makes its kubelet offer its limits and no more; empty where nothing is limited."""


class Steps:
    """Takes one step. Returns when it is done; raises StepFailed or StepPending."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def take(self, step: Step, site: Site, before: Record, now: float, *, anew: bool = False) -> None:
        """``before`` is the record as it was when the step was chosen: it tells of a try that was cut off.

        ``anew``: somebody has changed the cluster, or asked for a restart, since that try.
        """
        match step.name:
            case plan.NODE_INIT:
                known = [site.master_address] if site.master_address else []
                await self._do(site, step.node, ["./init.sh", *known], timeout=300)
            case plan.CONTROL_PLANE:
                await self._control_plane(site, before, now, anew)
            case plan.UPGRADED:
                role = "master" if step.node == site.master else "worker"
                await self._exclusively(site, step.node, ["./upgrade-kubernetes.sh", role], timeout=INIT_SECONDS)
            case plan.ANSWERS:
                await self._until(self._answers(site), before, now, READY_SECONDS, "the API does not answer")
            case plan.NODE_READY:
                ready = self._node_is_ready(site, step.node)
                await self._until(ready, before, now, READY_SECONDS, f"node {step.node} does not become ready")
            case plan.UNTAINT:
                await self._untaint(site)
            case plan.LABEL:
                await self._kubectl(site, "label", "nodes", pod_name(site.master), "role=master", "--overwrite")
            case plan.KUBECONFIG:
                await self._kubeconfig(site)
            case plan.JOINED:
                await self._join(site, step.node, before)
            case plan.RESERVED:
                await self._reserve(site, step.node)
            case plan.MASQUERADE:
                label = "beta.kubernetes.io/masq-agent-ds-ready=true"
                await self._kubectl(site, "label", "nodes", "--all", label, "--overwrite")
            case plan.TAINT:
                taint = f"{_role_key(site.minor)}:NoSchedule"
                await self._kubectl(site, "taint", "nodes", pod_name(site.master), taint, "--overwrite")
            case plan.KUBEFLOW:
                await self._kubeflow(site)
            case plan.KUBEFLOW_READY:
                runs = self._kubeflow_runs(site)
                await self._until(runs, before, now, KUBEFLOW_SECONDS, "Kubeflow does not run", every=30)
            case unknown:
                raise StepFailed(f"there is no step {unknown}", permanent=True)

    async def remove_node(self, site: Site, node: str) -> None:
        """Drain a node and take it out of its cluster; fine where it is not in it."""
        flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"]
        found = await self._run(site, site.master, [*_KUBECTL, "get", "node", pod_name(node)])
        if found.code == 0:
            await self._run(site, site.master, [*_KUBECTL, "drain", pod_name(node), *flags], timeout=90)
            await self._kubectl(site, "delete", "node", pod_name(node), "--ignore-not-found", "--timeout=30s")
        with suppress(ApiError, TimeoutError):  # so that its volume, if it is kept, brings no old member back
            await self._run(site, node, ["./reset-kubernetes.sh"], timeout=120)

    async def last_used(self, site: Site) -> float | None:
        """When somebody last used the cluster's API, in seconds since the epoch; None where the image cannot tell."""
        result = await self._run(site, site.master, ["./last-used.sh"])
        text = result.stdout.strip()
        return float(text) if result.code == 0 and text.isascii() and text.isdigit() and len(text) < 12 else None

    # -- one step each

    async def _control_plane(self, site: Site, before: Record, now: float, anew: bool) -> None:
        if await self._is_up(site):
            return
        if await self._has_begun(site):
            if not (anew and before.state in {"Failed", "Retrying"}):
                if before.state and now - before.started > INIT_SECONDS:
                    raise StepFailed("the control plane did not come up in time", permanent=True)
                raise StepPending(5)
            await self._exclusively(site, site.master, ["sh", "-c", _RESET, "reset-kubernetes.sh"], timeout=300)
        command = ["sh", "-c", _INIT, "init-kubernetes.sh", site.pod_cidr, site.service_cidr]
        if site.restore is not None:
            script = ["grep", "-q", "vk8s-begins-with-snapshot", "./init-kubernetes.sh"]
            if (await self._run(site, site.master, script)).code != 0:
                why = "the node image's init-kubernetes.sh cannot begin with a snapshot; take an image that can"
                raise StepFailed(why, permanent=True)
            await site.restore(self._machines, pod_name(site.master), RESTORED)
            command.append(RESTORED)
        try:
            await self._exclusively(site, site.master, command, timeout=INIT_SECONDS)
        except StepFailed as failure:
            if not await self._is_up(site):
                raise StepFailed(str(failure), permanent=True) from None
        if site.restore is not None:
            await self._run(site, site.master, ["rm", "-f", RESTORED])

    async def _until(
        self, look: Awaitable[bool], before: Record, now: float, limit: float, why: str, *, every: float = 2
    ) -> None:
        """Done if it is so; otherwise look again later, and fail when that has been too long."""
        if await look:
            return
        if before.state == "Running" and now - before.started > limit:
            raise StepFailed(f"{why} after {limit:.0f} seconds")
        raise StepPending(every)

    async def _answers(self, site: Site) -> bool:
        return (await self._run(site, site.master, [*_KUBECTL, "get", "--raw=/readyz"])).code == 0

    async def _node_is_ready(self, site: Site, node: str) -> bool:
        path = "-o=jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        result = await self._run(site, site.master, [*_KUBECTL, "get", "node", pod_name(node), path])
        return result.code == 0 and result.stdout.strip() == "True"

    async def _is_up(self, site: Site) -> bool:
        return (await self._run(site, site.master, [*_KUBECTL, "get", "--raw=/livez"])).code == 0

    async def _has_begun(self, site: Site) -> bool:
        return (await self._run(site, site.master, ["test", "-e", CA])).code == 0

    async def _untaint(self, site: Site) -> None:
        command = [*_KUBECTL, "taint", "nodes", "--all", f"{_role_key(site.minor)}-"]
        result = await self._run(site, site.master, command)
        if result.code != 0 and "not found" not in result.stderr + result.stdout:
            raise StepFailed(told(command, result))

    async def _kubeconfig(self, site: Site) -> None:
        result = await self._do(site, site.master, ["cat", ADMIN_CONF])
        if site.save_kubeconfig is not None and result.stdout.strip():
            await site.save_kubeconfig(result.stdout)

    async def _join(self, site: Site, node: str, before: Record) -> None:
        """A node has joined when the cluster knows it and it has its account; half of that is undone first."""
        known = (await self._run(site, site.master, [*_KUBECTL, "get", "node", pod_name(node)])).code == 0
        has_account = (await self._run(site, node, ["test", "-e", KUBELET_ACCOUNT])).code == 0
        if known and has_account:
            return
        if has_account or before.state:
            await self._exclusively(site, node, ["./reset-kubernetes.sh"], timeout=120)
        made = await self._run(site, site.master, ["kubeadm", "token", "create", "--ttl=15m", "--print-join-command"])
        parsed = _JOIN.search(made.stdout)
        if made.code != 0 or parsed is None:
            raise StepFailed(f"kubeadm token create gave no join command (exit code {made.code})")
        command = ["kubeadm", "join", "--config=/dev/stdin", "--skip-phases=preflight"]
        wanted = join_configuration(parsed, pod_name(node), site.minor)
        try:
            await self._exclusively(site, node, command, stdin=wanted, timeout=300)
        finally:
            token_id = parsed["token"].partition(".")[0]
            with suppress(ApiError, TimeoutError):  # it ends by itself after a while
                await self._run(site, site.master, ["kubeadm", "token", "delete", token_id])

    async def _reserve(self, site: Site, node: str) -> None:
        """Written anew, whatever was reserved before: the node may have come to another host."""
        text = site.reservations.get(node)
        if text is None:
            raise StepPending(1)  # its host is not known yet
        config = (await self._do(site, node, ["cat", KUBELET_CONF])).stdout
        wanted = without_reservation(config) + text
        if wanted != config:
            await self._do(site, node, ["tee", KUBELET_CONF], stdin=wanted.encode())
            await self._do(site, node, ["systemctl", "restart", "kubelet"])
        await self._do(site, node, ["systemctl", "is-active", "kubelet"])

    async def _kubeflow(self, site: Site) -> None:
        script = ["grep", "-q", "vk8s-password-from-stdin", "./install-kubeflow.sh"]
        if (await self._run(site, site.master, script)).code != 0:
            why = "the node image's install-kubeflow.sh does not read the password from its input; take a newer image"
            raise StepFailed(why, permanent=True)
        password = await site.password() if site.password is not None else ""
        command = [
            "./install-kubeflow.sh",
            site.kubeflow_version,
            site.registry,
            str(site.kubeflow_port),
            site.kubeflow_email,
            "-",
        ]
        given = f"{password}\n".encode()
        await self._exclusively(site, site.master, command, stdin=given, timeout=KUBEFLOW_SECONDS)

    async def _kubeflow_runs(self, site: Site) -> bool:
        result = await self._do(site, site.master, ["./check-running-state.sh"])
        return result.stdout.strip() == "True"

    # -- how

    async def _kubectl(self, site: Site, *words: str) -> Outcome:
        return await self._do(site, site.master, [*_KUBECTL, *words])

    async def _exclusively(
        self, site: Site, node: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = SHORT
    ) -> None:
        """A command beside which no other such command runs on the node, not even one whose caller has died."""
        result = await self._run(site, node, alone(command), stdin=stdin, timeout=timeout)
        if is_busy(result):
            raise StepPending(5)
        if result.code != 0:
            raise StepFailed(told(command, result))

    async def _do(
        self, site: Site, node: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = SHORT
    ) -> Outcome:
        result = await self._run(site, node, command, stdin=stdin, timeout=timeout)
        if result.code != 0:
            raise StepFailed(told(command, result))
        return result

    async def _run(
        self, site: Site, node: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = SHORT
    ) -> Outcome:
        return await self._machines.run(
            site.namespace, pod_name(node or site.master), command, stdin=stdin, timeout=timeout
        )


_LOCK: Final = "/run/vk8s.lock"
_BUSY: Final = 75
_BEGUN: Final = 76
_INIT: Final = f'[ ! -e {CA} ] || exit {_BEGUN}; exec ./init-kubernetes.sh "$@"'
_RESET: Final = (
    f"kubectl --kubeconfig={ADMIN_CONF} get --raw=/livez >/dev/null 2>&1 && exit {_BEGUN}; exec ./reset-kubernetes.sh"
)
"""Both look once more under the lock: whoever held it until now may have begun, or come to its end."""


def alone(command: Sequence[str]) -> list[str]:
    """The command, beside which no other such command runs on its node."""
    return ["flock", "--nonblock", "--close", f"--conflict-exit-code={_BUSY}", _LOCK, *command]


def is_busy(result: Outcome) -> bool:
    """Whether another such command still runs, or has done it."""
    return result.code in {_BUSY, _BEGUN}


_KUBECTL: Final = ("kubectl", f"--kubeconfig={ADMIN_CONF}")


def _role_key(minor: int | None) -> str:
    """Label and taint of control planes: another one since 1.24."""
    return (
        "node-role.kubernetes.io/control-plane"
        if minor is not None and minor >= 24
        else "node-role.kubernetes.io/master"
    )


def join_configuration(parsed: re.Match[str], name: str, minor: int | None) -> bytes:
    """What kubeadm join reads, so that the token is no word of a command (JSON is YAML)."""
    version = "v1beta2" if minor is not None and minor < 22 else "v1beta3"
    return orjson.dumps(
        {
            "apiVersion": f"kubeadm.k8s.io/{version}",
            "kind": "JoinConfiguration",
            "nodeRegistration": {"name": name},
            "discovery": {
                "bootstrapToken": {
                    "apiServerEndpoint": parsed["server"],
                    "token": parsed["token"],
                    "caCertHashes": [parsed["hash"]],
                }
            },
        }
    )


def told(command: Sequence[str], result: Outcome) -> str:
    """For people: which command, its code and its last words; never what went in."""
    last = (result.stderr.strip() or result.stdout.strip()).rpartition("\n")[2][:200]
    name = (command[3] if command[:2] == ["sh", "-c"] else command[0]).removeprefix("./")
    return f"{name} ended with exit code {result.code}" + (f": {redacted(last)}" if last else "")


def redacted(text: str) -> str:
    """Bootstrap tokens, and whatever follows a word like password, are not shown."""
    text = re.sub(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", "<token>", text)
    return re.sub(r"(?i)(pass(word)?|secret|token)([=: ]+)\S+", r"\1\3<hidden>", text)


def reservation(capacity: Mapping[str, int], limits: Mapping[str, int]) -> str:
    """What a kubelet has to keep back of its machine so that it offers the limits. Empty where nothing is limited.

    Both in thousandths, by ``cpu``, ``memory`` and ``ephemeral-storage``. Bytes are rounded up to whole Mi, so that what
    is offered is never more than the limit.
    """
    lines = []
    for key in ("cpu", "memory", "ephemeral-storage"):
        if key in capacity and key in limits and (kept := capacity[key] - limits[key]) > 0:
            shown = f"{kept}m" if key == "cpu" else f"{-(-kept // (1000 << 20))}Mi"
            lines.append(f'  {key}: "{shown}"\n')
    return "systemReserved:\n" + "".join(lines) if lines else ""


def without_reservation(config: str) -> str:
    """A kubelet's configuration without its block ``systemReserved``, ending with a line's end."""
    kept: list[str] = []
    inside = False
    for line in config.splitlines(keepends=True):
        inside = line.startswith("systemReserved:") or (inside and line.startswith((" ", "\t")))
        if not inside:
            kept.append(line)
    text = "".join(kept)
    return text if not text or text.endswith("\n") else f"{text}\n"
