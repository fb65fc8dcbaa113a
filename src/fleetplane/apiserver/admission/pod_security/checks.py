"""The checks of the Pod Security Standards, each a function from a pod to what is wrong with it. Pure.

Rules and wording are those of Kubernetes' newest version; pods have passed validation before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fleetplane.model.pod_security import BASELINE_CAPABILITIES, SAFE_SYSCTLS

Pod = Mapping[str, Any]


class Violation(NamedTuple):
    """``reason`` names the rule, ``detail`` says who breaks it, and what to do."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check = Callable[[Pod], Violation | None]


def evaluate(level: str, pod: Pod) -> list[Violation]:
    """Everything a pod (or a pod template) does that a level forbids, in Kubernetes' order."""
    if level == "privileged":
        return []
    checks = (*_BASELINE, *(_RESTRICTED if level == "restricted" else _ONLY_BASELINE))
    return [found for check in checks if (found := check(pod)) is not None]


def detail_of(violations: Sequence[Violation]) -> str:
    return ", ".join(map(str, violations))


def reason_of(violations: Sequence[Violation]) -> str:
    return ", ".join(one.reason for one in violations)


# -- readers ---------------------------------------------------------------------------------------------------------


def _spec(pod: Pod) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod.get("spec") or {}
    return found


def _containers(pod: Pod) -> Iterator[Mapping[str, Any]]:
    spec = _spec(pod)
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def _context(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = holder.get("securityContext") or {}
    return found


def _is_windows(pod: Pod) -> bool:
    return (_spec(pod).get("os") or {}).get("name") == "windows"


def _has_own_users(pod: Pod) -> bool:
    """In a user namespace of its own the root of a pod is nobody outside."""
    return _spec(pod).get("hostUsers") is False


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(json.dumps(word) for word in words)


def _count(one: str, several: str, number: int) -> str:
    return one if number == 1 else several


def _named(names: Sequence[str]) -> str:
    return f"{_count('container', 'containers', len(names))} {_quoted(names)}"


def _setters(pod_sets: bool, names: Sequence[str]) -> str:
    """``pod and containers "a", "b"``"""
    return " and ".join([*(["pod"] if pod_sets else []), *([_named(names)] if names else [])])


def _breaking(pod: Pod, breaks: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    return [str(one.get("name")) for one in _containers(pod) if breaks(one)]


# -- baseline --------------------------------------------------------------------------------------------------------

_APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_SELINUX_TYPES: Final = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_SECCOMP: Final = frozenset({"RuntimeDefault", "Localhost"})


def _app_armor(pod: Pod) -> Violation | None:
    def unconfined(holder: Mapping[str, Any]) -> bool:
        kind = (_context(holder).get("appArmorProfile") or {}).get("type")
        return kind is not None and kind not in _SECCOMP

    holders = [_spec(pod), *_containers(pod)]
    setters = [one for one in [_setters(unconfined(_spec(pod)), _breaking(pod, unconfined))] if one]
    values = sorted({str(_context(one)["appArmorProfile"]["type"]) for one in holders if unconfined(one)})
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    marks = [
        f"{key}={json.dumps(value)}"
        for key, value in sorted(annotations.items())
        if key.startswith(_APP_ARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    ]
    if marks:
        setters.append(_count("annotation", "annotations", len(marks)))
    if not setters:
        return None
    told = [*([_quoted(values)] if values else []), *marks]
    return Violation(
        _count("forbidden AppArmor profile", "forbidden AppArmor profiles", len(values) + len(marks)),
        f"{' and '.join(setters)} must not set AppArmor profile type to {', '.join(told)}",
    )


def _host_namespaces(pod: Pod) -> Violation | None:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if _spec(pod).get(key)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def _host_ports(pod: Pod) -> Violation | None:
    names, ports = [], set()
    for container in _containers(pod):
        used = {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")}
        if used:
            names.append(str(container.get("name")))
            ports |= used
    if not names:
        return None
    verb, noun = _count("uses", "use", len(names)), _count("hostPort", "hostPorts", len(ports))
    return Violation("hostPort", f"{_named(names)} {verb} {noun} {', '.join(sorted(ports))}")


def _probe_hosts(pod: Pod) -> Violation | None:
    names, hosts = set(), set()
    for container in _containers(pod):
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(key) for key in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [lifecycle.get(key) for key in ("postStart", "preStop")]
        used = {
            (handler.get(key) or {}).get("host") for handler in handlers if handler for key in ("httpGet", "tcpSocket")
        } - {None, ""}
        if used:
            names.add(str(container.get("name")))
            hosts |= used
    if not names:
        return None
    verb = _count("uses", "use", len(names))
    noun = _count("probe or lifecycle host", "probe or lifecycle hosts", len(hosts))
    return Violation(
        "probe or lifecycle host", f"{_named(sorted(names))} {verb} {noun} {_quoted(sorted(map(str, hosts)))}"
    )


def _privileged(pod: Pod) -> Violation | None:
    names = _breaking(pod, lambda one: bool(_context(one).get("privileged")))
    return Violation("privileged", f"{_named(names)} must not set securityContext.privileged=true") if names else None


def _proc_mount(pod: Pod) -> Violation | None:
    if _has_own_users(pod):
        return None
    names = _breaking(pod, lambda one: _context(one).get("procMount") not in (None, "Default"))
    if not names:
        return None
    kinds = sorted({str(_context(one)["procMount"]) for one in _containers(pod) if one.get("name") in names})
    return Violation("procMount", f"{_named(names)} must not set securityContext.procMount to {_quoted(kinds)}")


def _se_linux(pod: Pod) -> Violation | None:
    def options(holder: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = _context(holder).get("seLinuxOptions") or {}
        return found

    def breaks(holder: Mapping[str, Any]) -> bool:
        given = options(holder)
        return (given.get("type") or "") not in _SELINUX_TYPES or bool(given.get("user") or given.get("role"))

    setters = _setters(breaks(_spec(pod)), _breaking(pod, breaks))
    if not setters:
        return None
    holders = [options(one) for one in (_spec(pod), *_containers(pod))]
    types = sorted({str(one["type"]) for one in holders if (one.get("type") or "") not in _SELINUX_TYPES})
    told = [f"{_count('type', 'types', len(types))} {_quoted(types)}"] if types else []
    told += [f"{key} may not be set" for key in ("user", "role") if any(one.get(key) for one in holders)]
    return Violation("seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(told)}")


def _sysctls(pod: Pod) -> Violation | None:
    names = [str(one.get("name")) for one in _context(_spec(pod)).get("sysctls") or ()]
    found = [name for name in names if name not in SAFE_SYSCTLS]
    return Violation("forbidden sysctls", ", ".join(found)) if found else None


def _host_process(pod: Pod) -> Violation | None:
    def breaks(holder: Mapping[str, Any]) -> bool:
        return bool((_context(holder).get("windowsOptions") or {}).get("hostProcess"))

    setters = _setters(breaks(_spec(pod)), _breaking(pod, breaks))
    if not setters:
        return None
    return Violation("hostProcess", f"{setters} must not set securityContext.windowsOptions.hostProcess=true")


# -- what the restricted level words more strictly -------------------------------------------------------------------


def _added(container: Mapping[str, Any], allowed: frozenset[str]) -> set[str]:
    return set((_context(container).get("capabilities") or {}).get("add") or ()) - allowed


def _adding(pod: Pod, allowed: frozenset[str]) -> str:
    names = _breaking(pod, lambda one: bool(_added(one, allowed)))
    if not names:
        return ""
    added = sorted(set().union(*(_added(one, allowed) for one in _containers(pod))))
    return f"{_named(names)} must not include {_quoted(added)} in securityContext.capabilities.add"


def _capabilities_baseline(pod: Pod) -> Violation | None:
    detail = _adding(pod, BASELINE_CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def _host_path(pod: Pod) -> Violation | None:
    names = [str(one.get("name")) for one in _spec(pod).get("volumes") or () if one.get("hostPath")]
    if not names:
        return None
    return Violation("hostPath volumes", f"{_count('volume', 'volumes', len(names))} {_quoted(names)}")


def _bad_seccomp(holder: Mapping[str, Any]) -> bool:
    profile = _context(holder).get("seccompProfile")
    return profile is not None and profile.get("type") not in _SECCOMP


def _seccomp_baseline(pod: Pod) -> Violation | None:
    setters = _setters(_bad_seccomp(_spec(pod)), _breaking(pod, _bad_seccomp))
    if not setters:
        return None
    kinds = {
        str(_context(one)["seccompProfile"].get("type")) for one in (_spec(pod), *_containers(pod)) if _bad_seccomp(one)
    }
    return Violation(
        "seccompProfile", f"{setters} must not set securityContext.seccompProfile.type to {_quoted(sorted(kinds))}"
    )


# -- restricted ------------------------------------------------------------------------------------------------------

_VOLUMES: Final = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)


def _privilege_escalation(pod: Pod) -> Violation | None:
    if _is_windows(pod):
        return None
    names = _breaking(pod, lambda one: _context(one).get("allowPrivilegeEscalation") is not False)
    if not names:
        return None
    detail = f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def _capabilities_restricted(pod: Pod) -> Violation | None:
    if _is_windows(pod):
        return None
    keeping = _breaking(pod, lambda one: "ALL" not in ((_context(one).get("capabilities") or {}).get("drop") or ()))
    found = [f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    adding = _adding(pod, frozenset({"NET_BIND_SERVICE"}))
    found += [adding] if adding else []
    return Violation("unrestricted capabilities", "; ".join(found)) if found else None


def _restricted_volumes(pod: Pod) -> Violation | None:
    bad: dict[str, str] = {}
    for volume in _spec(pod).get("volumes") or ():
        kinds = [key for key, value in volume.items() if key != "name" and value is not None]
        if not _VOLUMES & set(kinds):
            bad[str(volume.get("name"))] = kinds[0] if kinds else "unknown"
    if not bad:
        return None
    kinds = sorted(set(bad.values()))
    noun, verb = _count("volume", "volumes", len(bad)), _count("uses", "use", len(bad))
    what = f"restricted volume {_count('type', 'types', len(kinds))} {_quoted(kinds)}"
    return Violation("restricted volume types", f"{noun} {_quoted(bad)} {verb} {what}")


def _non_root(pod: Pod) -> Violation | None:
    if _has_own_users(pod):
        return None
    word = "runAsNonRoot != true"
    whole = _context(_spec(pod)).get("runAsNonRoot")
    setters = _setters(whole is False, _breaking(pod, lambda one: _context(one).get("runAsNonRoot") is False))
    if setters:
        return Violation(word, f"{setters} must not set securityContext.runAsNonRoot=false")
    silent = [] if whole else _breaking(pod, lambda one: _context(one).get("runAsNonRoot") is None)
    return Violation(word, f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true") if silent else None


def _not_user_zero(pod: Pod) -> Violation | None:
    if _has_own_users(pod):
        return None

    def breaks(holder: Mapping[str, Any]) -> bool:
        return _context(holder).get("runAsUser") == 0 and _context(holder).get("runAsUser") is not None

    setters = _setters(breaks(_spec(pod)), _breaking(pod, breaks))
    return Violation("runAsUser=0", f"{setters} must not set runAsUser=0") if setters else None


def _seccomp_restricted(pod: Pod) -> Violation | None:
    if _is_windows(pod):
        return None
    explicit = _seccomp_baseline(pod)
    if explicit is not None:
        return explicit
    if _context(_spec(pod)).get("seccompProfile") is not None:
        return None
    silent = _breaking(pod, lambda one: _context(one).get("seccompProfile") is None)
    if not silent:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", f"pod or {_named(silent)} {wanted}")


_BASELINE: Final[tuple[Check, ...]] = (
    _app_armor,
    _host_namespaces,
    _host_ports,
    _probe_hosts,
    _privileged,
    _proc_mount,
    _se_linux,
    _sysctls,
    _host_process,
)
_ONLY_BASELINE: Final[tuple[Check, ...]] = (_capabilities_baseline, _host_path, _seccomp_baseline)
"""Contained in a check of the restricted level."""
_RESTRICTED: Final[tuple[Check, ...]] = (
    _privilege_escalation,
    _capabilities_restricted,
    _restricted_volumes,
    _non_root,
    _not_user_zero,
    _seccomp_restricted,
)
