"""What one can do about the usual reasons why objects are not ready. A pure function of the reason; silent where unsure."""

from __future__ import annotations

from fleetplane.model.objects import Object, name


def advice(obj: Object, reference: str, why: str, here: str) -> str:
    """A sentence or a command; empty where we know of nothing.

    Args:
        why: The reason, in the words of ``readiness``.
        here: Options to repeat in commands, such as ``" -n shop"``.
    """
    kind = obj.get("kind")
    if kind == "Pod":
        return _of_pod(obj, why, here)
    if "is paused" in why:
        return f"fleetplane rollout resume {reference}{here}"
    if kind == "Node":
        return "check that the machine runs and that its node agent reaches this server"
    if kind == "PersistentVolumeClaim":
        return "make a volume that fits it, or name a storage class that makes volumes"
    if "finalizers" in why:
        return "find out who should remove the finalizers and why it does not"
    if any(words in why for words in ("has not seen", "has not looked", "has not reported")):
        return "check that the controller of this kind runs"
    return ""


def _of_pod(pod: Object, why: str, here: str) -> str:
    if "cannot be placed" in why:
        free = "'fleetplane describe nodes' shows what is free"
        return f"lower what it requests, change its selectors or tolerations, or add a node; {free}"
    if "ImagePull" in why or "InvalidImageName" in why:
        return "correct the image's name, or give the pod the registry's credentials (imagePullSecrets)"
    container = next((one for one in _containers(pod) if why.startswith(f"container {one} ")), "")
    logs = f"fleetplane logs {name(pod)} -c {container}{here}"
    if "keeps ending" in why:
        return f"read what it wrote before: {logs} -p"
    if "ended (" in why:
        return f"read what it wrote: {logs}"
    if "runs but is not ready" in why:
        return f"its readiness probe fails; see: {logs}"
    return ""


def _containers(pod: Object) -> list[str]:
    spec = pod.get("spec") or {}
    return [str(one.get("name")) for group in ("initContainers", "containers") for one in spec.get(group) or []]
