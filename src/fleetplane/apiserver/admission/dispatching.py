"""What the chain and those who look beyond the process (webhooks, policies) agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from fleetplane.apiserver import metadata as meta
from fleetplane.apiserver.call import Call
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.objects import Object

_OPTIONS: Final = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class Memory:
    """What each mutator made of the object when it was last asked; ``again`` in the second round, which is the last."""

    def __init__(self) -> None:
        self.again = False
        self._left: dict[str, Object | None] = {}

    def note(self, who: str, obj: Object | None) -> None:
        self._left[who] = obj

    def changed_since(self, who: str, obj: Object | None) -> bool:
        """Whether somebody changed the object after this one was asked; false when it never was."""
        return who in self._left and self._left[who] != obj


class Dispatcher(Protocol):
    """Asks others about a request. Both return at once where nobody is to be asked."""

    async def mutate(self, call: Call, request: AdmissionRequest, memory: Memory) -> AdmissionRequest: ...

    async def validate(self, call: Call, request: AdmissionRequest) -> None: ...


def options_of(call: Call, request: AdmissionRequest) -> Object:
    """The options of the request, as an object of meta.k8s.io."""
    if request.options:
        return request.options
    kind = _OPTIONS.get(request.operation)
    if kind is None:
        return {}
    if request.operation == "UPDATE" and call.target.verb == "patch":
        kind = "PatchOptions"
    made: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if request.dry_run:
        made["dryRun"] = ["All"]
    if kind != "DeleteOptions":
        if call.request.query.get("fieldManager"):
            made["fieldManager"] = call.field_manager
        if call.request.query.get("fieldValidation"):
            made["fieldValidation"] = call.field_validation
    return made


_KEPT: Final = (*meta.SERVER_OWNED, "namespace", "generation")


def with_own(made: Object, before: Mapping[str, Any]) -> Object:
    """What somebody else made of an object, with what the server owns of it as it was."""
    metadata = dict(made["metadata"])
    for key in _KEPT:
        if key in before["metadata"]:
            metadata[key] = before["metadata"][key]
        else:
            metadata.pop(key, None)
    return {**made, "metadata": metadata}
