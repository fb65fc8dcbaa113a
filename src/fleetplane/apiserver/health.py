"""``/livez``, ``/readyz`` and ``/healthz`` with named checks, and ``/version``: what anyone may ask."""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Mapping

import orjson

from fleetplane import __version__
from fleetplane.apiserver.http import Request, Response

KUBERNETES_VERSION = "1.37"
Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong in a sentence, None when all is well."""


def version() -> Response:
    major, minor = KUBERNETES_VERSION.split(".")
    body = {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}.0+fleetplane",
        "gitCommit": f"fleetplane-{__version__}",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
    }
    return Response(200, orjson.dumps(body, option=orjson.OPT_INDENT_2))


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Health:
    """Named checks behind the three health paths."""

    def __init__(self, live: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        self._checks: dict[str, dict[str, Check]] = {
            "livez": dict(live),
            "healthz": {**live, **ready},
            "readyz": {**live, **ready},
        }

    async def answer(self, request: Request, path: str) -> Response | None:
        """The answer of a health path, None for any other path."""
        kind, _, only = path.lstrip("/").partition("/")
        checks = self._checks.get(kind)
        if checks is None:
            return None
        if only:
            if only not in checks:
                return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")
            checks = {only: checks[only]}
        excluded = set(request.queries.get("exclude", []))
        lines: list[str] = []
        failed = False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            problem = await check()
            failed = failed or problem is not None
            lines.append(f"[+]{name} ok" if problem is None else f"[-]{name} failed: {problem}")
        if failed:
            lines.append(f"{kind} check failed")
            return _text(500, "\n".join(lines) + "\n")
        if "verbose" in request.query:
            lines.append(f"{kind} check passed")
            return _text(200, "\n".join(lines) + "\n")
        return _text(200, "ok")


def _text(status: int, text: str) -> Response:
    return Response(
        status,
        text.encode(),
        "text/plain; charset=utf-8",
        {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"},
    )
