"""From what people name to pods: a pod itself, those of a Deployment, Service or Job, those with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.resources import Target, parse_targets, reference
from fleetplane.model.objects import Object, is_condition_true, metadata, name
from fleetplane.model.resources import ResourceType

PODS: Final = ResourceType("", "v1", "Pod", "pods")
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


async def pods_of(session: Session, words: Sequence[str], selector: str = "") -> list[Object]:
    """The pods that were meant, the best first: ready before others, older before younger. Raises CommandError."""
    if selector and words:
        raise UsageError("give either a name or a selector, not both")
    if selector:
        found = await _labelled(session, selector)
        if not found:
            raise CommandError(f"no pod has the labels {selector} in namespace {session.namespace}")
        return found
    if not words:
        raise UsageError("name a pod, or what has pods: web, deploy/web, or -l app=web")
    if len(words) == 1 and "/" not in words[0]:
        words = (f"pods/{words[0]}",)
    targets = await parse_targets(session, words)
    if len(targets) != 1 or not targets[0].name:
        raise UsageError("name exactly one pod, or one object that has pods")
    return await _of_target(session, targets[0])


async def _of_target(session: Session, target: Target) -> list[Object]:
    obj = await session.client.get(
        target.resource, target.name, session.namespace if target.resource.namespaced else None
    )
    if (target.resource.group, target.resource.kind) == ("", "Pod"):
        return [obj]
    what = reference(target.resource, target.name)
    text = selector_of(obj)
    if not text:
        raise CommandError(f"{what} has no selector that says which pods are its own; name a pod instead")
    found = await _labelled(session, text)
    if not found:
        raise CommandError(f"{what} has no pods at the moment; 'fleetplane events {what}' may say why")
    return found


def selector_of(obj: Object) -> str:
    """The labels an object selects pods by, in text form; empty when it selects none."""
    from fleetplane.model.selectors import LabelSelector

    selector = (obj.get("spec") or {}).get("selector")
    if not isinstance(selector, dict) or not selector:
        return ""
    is_labels = all(isinstance(value, str) for value in selector.values())
    parsed = LabelSelector.from_labels(selector) if is_labels else LabelSelector.from_object(selector)
    return str(parsed)


async def _labelled(session: Session, selector: str) -> list[Object]:
    found = [pod async for pod in session.client.iterate(PODS, session.namespace, labels=selector)]
    return sorted(
        found,
        key=lambda pod: (not is_condition_true(pod, "Ready"), str(metadata(pod).get("creationTimestamp")), name(pod)),
    )


def container_of(pod: Object, given: str) -> str:
    """The container that was named, or the pod's default one. Raises CommandError when there is no such container."""
    names = containers(pod)
    if given:
        if given not in names:
            raise CommandError(f"pod {name(pod)} has no container {given!r}; it has: {', '.join(names)}")
        return given
    default = (metadata(pod).get("annotations") or {}).get(DEFAULT_CONTAINER)
    main = [str(one.get("name")) for one in (pod.get("spec") or {}).get("containers") or []]
    return default if default in names else (main or names or [""])[0]


def containers(pod: Object) -> list[str]:
    """Every container in the order it starts."""
    spec = pod.get("spec") or {}
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [str(one.get("name")) for group in groups for one in spec.get(group) or []]
