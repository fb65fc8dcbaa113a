"""Conversion webhooks: the versions of a custom resource that somebody else's server turns into each other.

ConversionReview (apiextensions.k8s.io/v1, or v1beta1 where only that is understood) over HTTPS, a whole list in one
request. What comes back is believed as far as a converter may go: kind, identity and all metadata but labels and
annotations are the original's. Errors are told in kube-apiserver's words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.outgoing import CallFailed, Outgoing
from fleetplane.apiserver.registry import Converter
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

GROUP: Final = "apiextensions.k8s.io"
SECONDS: Final = 30.0
_VERSIONS: Final = ("v1", "v1beta1")
_FREE: Final = ("labels", "annotations")
_SAME: Final = (("name", "name"), ("namespace", "namespace"), ("uid", "UID"))


class _BadAnswer(Exception):
    """The message says what is wrong with it."""


class Conversion:
    """Makes the converters of definitions."""

    def __init__(self, outgoing: Outgoing, environment: Environment) -> None:
        self._outgoing = outgoing
        self._environment = environment

    def converter_for(self, cluster: str, definition: Object) -> Converter | None:
        """None where versions differ in nothing but their name."""
        conversion = (definition.get("spec") or {}).get("conversion") or {}
        if conversion.get("strategy") != "Webhook":
            return None
        webhook = conversion.get("webhook") or {}
        client = webhook.get("clientConfig") or {}
        asked = webhook.get("conversionReviewVersions") or ()
        version = next((one for one in asked if one in _VERSIONS), "")

        async def convert(objects: Sequence[Object], api_version: str) -> list[Object]:
            return await self._convert(cluster, client, version, objects, api_version)

        return convert

    async def _convert(
        self, cluster: str, client: Mapping[str, Any], version: str, objects: Sequence[Object], api_version: str
    ) -> list[Object]:
        """The objects in another version, in their order. Raises ApiError 500."""
        wanted = [one for one in objects if one.get("apiVersion") != api_version]
        if not wanted:
            return list(objects)
        what = f"conversion webhook for {_shown(wanted[0].get('apiVersion'), wanted[0].get('kind'))}"
        if not version:
            raise _failed("no supported conversion review versions")
        uid = self._environment.uuid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"{GROUP}/{version}",
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": wanted},
        }
        try:
            answer = await self._outgoing.post(cluster, client, review, SECONDS)
            made = _objects_of(answer, uid, version)
        except (CallFailed, _BadAnswer) as error:
            raise _failed(f"{what} failed: {error}") from None
        if len(made) != len(wanted):
            raise _failed(f"{what} returned {len(made)} objects, expected {len(wanted)}")
        converted = iter(
            [
                _believed(what, index, before, after, api_version)
                for index, (before, after) in enumerate(zip(wanted, made, strict=True))
            ]
        )
        return [one if one.get("apiVersion") == api_version else next(converted) for one in objects]


def _failed(message: str) -> ApiError:
    return ApiError(500, message, reason="")


def _shown(api_version: Any, kind: Any) -> str:
    return f"{api_version or ''}, Kind={kind or ''}"


def _objects_of(answer: Mapping[str, Any], uid: str, version: str) -> Sequence[Any]:
    given = (answer.get("apiVersion"), answer.get("kind"))
    wanted = (f"{GROUP}/{version}", "ConversionReview")
    if given != wanted and (version == "v1" or any(given)):
        raise _BadAnswer(f"expected webhook response of {_shown(*wanted)}, got {_shown(*given)}")
    response = answer.get("response")
    if not isinstance(response, Mapping):
        raise _BadAnswer("no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise _BadAnswer(f'expected response.uid="{uid}", got {json.dumps(response.get("uid") or "")}')
    result = response.get("result")
    result = result if isinstance(result, Mapping) else {}
    if result.get("status") != "Success":
        message = result.get("message")
        raise _BadAnswer(message or f"response.result.status was '{result.get('status') or ''}', not 'Success'")
    made = response.get("convertedObjects")
    return made if isinstance(made, list) else []


def _believed(what: str, index: int, before: Object, after: Any, api_version: str) -> Object:
    """The converted object with the original's metadata. Raises ApiError 500."""
    where = f"{what} returned invalid converted object at index {index}"
    if not isinstance(after, dict):
        raise _failed(f"{where}: it is not an object")
    expected, received = api_version, after.get("apiVersion")
    if expected != received:
        raise _failed(f"{where}: invalid groupVersion (expected {expected}, received {received})")
    if before.get("kind") != after.get("kind"):
        raise _failed(f"{where}: invalid kind (expected {before.get('kind')}, received {after.get('kind')})")
    metadata = after.get("metadata")
    if not isinstance(metadata, dict):
        raise _failed(
            f"{what} returned invalid metadata in object at index {index}: missing metadata in converted object"
        )
    for key, word in _SAME:
        if (before["metadata"].get(key) or "") != (metadata.get(key) or ""):
            raise _failed(f"{where}: must have the same {word}: {before['metadata'].get(key)} != {metadata.get(key)}")
    made = {key: value for key, value in before["metadata"].items() if key not in _FREE}
    for key in _FREE:
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise _failed(
                f"{what} returned invalid metadata in object at index {index}: metadata.{key} must be strings"
            )
        if value:
            made[key] = value
    return {**after, "metadata": made}
