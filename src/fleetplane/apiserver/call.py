"""One API call on a resource: what the stages know of it and pass down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleetplane.apiserver.http import Request
from fleetplane.apiserver.negotiation import PLAIN, Representation
from fleetplane.apiserver.registry import Served
from fleetplane.apiserver.routing import Target
from fleetplane.model import errors
from fleetplane.model.user import UserInfo

FieldValidation = Literal["Strict", "Warn", "Ignore"]
_MAX_WARNING_LENGTH = 4096
_MAX_MANAGER = 128


@dataclass(slots=True)
class Call:
    """``cluster`` is the id of the logical cluster (what storage keys carry), ``None`` for all of them.

    ``warnings`` is filled on the way and sent as RFC 7234 Warning headers; ``annotations`` goes into the audit log.
    """

    request: Request
    target: Target
    served: Served
    user: UserInfo
    cluster: str | None
    dry_run: bool = False
    field_manager: str = ""
    field_validation: FieldValidation = "Warn"
    representation: Representation = PLAIN
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def key_cluster(self) -> str:
        """The cluster to write in. Raises ApiError 405 for a call over all clusters."""
        if self.cluster is None:
            raise errors.method_not_allowed("objects of all clusters can be listed and watched, not written")
        return self.cluster

    def warn(self, text: str) -> None:
        if text not in self.warnings and sum(map(len, self.warnings)) + len(text) <= _MAX_WARNING_LENGTH:
            self.warnings.append(text)

    def annotate(self, key: str, value: str) -> None:
        """Add to the audit event of the request; the first who uses a key keeps it."""
        self.annotations.setdefault(key, value)


def parse_write_options(call: Call, query: Mapping[str, str]) -> None:
    """Read ``dryRun``, ``fieldManager`` and ``fieldValidation``. Raises ApiError 422/400 on values not known."""
    dry_run = query.get("dryRun")
    if dry_run:
        if dry_run != "All":
            raise errors.invalid(
                "CreateOptions",
                "",
                [errors.FieldError.not_supported("dryRun", [dry_run], ["All"])],
                group="meta.k8s.io",
            )
        call.dry_run = True
    manager = query.get("fieldManager") or ""
    if len(manager) > _MAX_MANAGER or not manager.isprintable():
        problem = errors.FieldError.too_long("fieldManager", _MAX_MANAGER)
        if len(manager) <= _MAX_MANAGER:
            problem = errors.FieldError.invalid("fieldManager", manager, "should only contain printable characters")
        raise errors.invalid("CreateOptions", "", [problem], group="meta.k8s.io")
    call.field_manager = manager or default_field_manager(call.request.headers.get("user-agent", ""))
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise errors.invalid(
            "CreateOptions",
            "",
            [errors.FieldError.not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"])],
            group="meta.k8s.io",
        )
    call.field_validation = validation  # type: ignore[assignment]


def default_field_manager(user_agent: str) -> str:
    """The manager of a client that names none: the part of its User-Agent before the first slash."""
    name = user_agent.partition("/")[0]
    if not name.isprintable():
        name = "".join(filter(str.isprintable, name))
    return name[:_MAX_MANAGER] or "unknown"
