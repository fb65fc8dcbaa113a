"""Namespace lifecycle: objects are created only in namespaces that exist and are not going away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleetplane.model import errors
from fleetplane.model.admission import ALLOWED, AdmissionPlugin, AdmissionRequest, AdmissionRule, Decision, Reader
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.objects import Object, is_deleting, labels

PROTECTED = frozenset({"default", "kube-system", "kube-public"})
_ALWAYS_CREATABLE = frozenset({"localsubjectaccessreviews.authorization.k8s.io"})


class NamespaceView:
    """The namespaces of all clusters: their labels, and whether each is going away; fed by a follower."""

    def __init__(self) -> None:
        self._terminating: dict[tuple[str, str], bool] = {}
        self._labels: dict[tuple[str, str], Mapping[str, str]] = {}

    def reset(self) -> None:
        self._terminating.clear()
        self._labels.clear()

    def apply(self, cluster: str, namespace: Object, deleted: bool) -> None:
        key = (cluster, namespace["metadata"]["name"])
        if deleted:
            self._terminating.pop(key, None)
            self._labels.pop(key, None)
        else:
            self._terminating[key] = is_deleting(namespace)
            self._labels[key] = labels(namespace)

    def labels_for(self, cluster: str, request: AdmissionRequest) -> Mapping[str, str] | None:
        """What a ``namespaceSelector`` looks at: None for an object outside namespaces; a new namespace's own labels."""
        if request.resource.qualified == "namespaces":
            return labels(request.object)
        if not request.resource.namespaced or not request.namespace:
            return None
        return self._labels.get((cluster, request.namespace), {})

    def is_terminating(self, cluster: str, name: str) -> bool | None:
        """None when no such namespace has been seen."""
        return self._terminating.get((cluster, name))


def namespace_plugins(view: NamespaceView, cluster_id: Callable[[str], str]) -> list[AdmissionPlugin]:
    """``cluster_id`` turns a cluster's name into its id."""

    async def check_create(request: AdmissionRequest, reader: Reader) -> Decision:
        namespace = request.namespace
        if not namespace or not request.resource.namespaced or request.resource.qualified in _ALWAYS_CREATABLE:
            return ALLOWED
        terminating = view.is_terminating(cluster_id(request.cluster), namespace)
        if terminating is None:
            found = await reader.get(NAMESPACES, namespace)  # it may be newer than the view
            if found is None:
                return Decision(denial=errors.not_found("namespaces", namespace))
            terminating = is_deleting(found)
        if terminating:
            return Decision(denial=_being_terminated(request))
        return ALLOWED

    async def check_delete(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.name in PROTECTED:
            message = "this namespace may not be deleted"
            return Decision(denial=errors.forbidden(message, resource="namespaces", name=request.name))
        return ALLOWED

    return [
        AdmissionPlugin(
            "namespace-lifecycle.fleetplane.io",
            "mutate",
            [AdmissionRule(["*"], ["CREATE"], ["*"])],
            check_create,
            -1000,
        ),
        AdmissionPlugin(
            "namespace-protection.fleetplane.io", "validate", [AdmissionRule(["namespaces"], ["DELETE"])], check_delete
        ),
    ]


def _being_terminated(request: AdmissionRequest) -> errors.ApiError:
    namespace = request.namespace
    error = errors.forbidden(
        f"unable to create new content in namespace {namespace} because it is being terminated",
        group=request.resource.group,
        resource=request.resource.plural,
        name=request.name,
    )
    error.causes = (
        errors.FieldError("NamespaceTerminating", "metadata.namespace", f"namespace {namespace} is being terminated"),
    )
    return error
