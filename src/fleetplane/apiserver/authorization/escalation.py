"""Nobody gives away what they do not have: the checks on writing roles and bindings.

Whoever writes a role must hold all it grants, or the verb ``escalate`` on it; whoever writes a binding must hold all the
role grants, or the verb ``bind`` on the role. An aggregation rule may gather anything later, so it takes everything now.
(https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from fleetplane.apiserver.authorization.attributes import Attributes, Authorizer
from fleetplane.apiserver.authorization.rbac import CLUSTER_ROLES, GROUP, ROLES, RbacIndex
from fleetplane.apiserver.authorization.rules import Rule, compact, rules_of, uncovered
from fleetplane.model import errors, objects
from fleetplane.model.admission import ALLOWED, AdmissionPlugin, AdmissionRequest, AdmissionRule, Decision, Reader
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import MASTERS_GROUP, UserInfo

NAME: Final = "rbac-escalation.fleetplane.io"

_EVERYTHING: Final = (Rule(("*",), ("*",), ("*",)), Rule(verbs=("*",), urls=("*",)))
_HOUSEKEEPING: Final = frozenset({"ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"})


def escalation_checks(
    index: RbacIndex, authorize: Authorizer, cluster_id: Callable[[str], str] = lambda name: name
) -> AdmissionPlugin:
    """The admission plug-in. ``cluster_id`` turns a logical cluster's name into its uid."""

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision:
        cluster = cluster_id(request.cluster)
        denial = check(request, index, authorize, cluster)
        return ALLOWED if denial is None else Decision(denial=denial)

    names = [f"{plural}.{GROUP}" for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")]
    return AdmissionPlugin(NAME, "validate", (AdmissionRule(names, ("CREATE", "UPDATE")),), admit, order=-1000)


def check(request: AdmissionRequest, index: RbacIndex, authorize: Authorizer, cluster: str) -> ApiError | None:
    """Why this role or binding may not be written by this user; None when it may."""
    user, new = request.user, request.object
    if user.in_group(MASTERS_GROUP) or _is_housekeeping(request.old, new):
        return None
    name = request.name or objects.name(new)
    why: str | ApiError | None
    if request.resource.plural in {"roles", "clusterroles"}:
        why = _role(user, new, request, index, authorize, cluster, name)
    else:
        why = _binding(user, new, request, index, authorize, cluster)
    if why is None or isinstance(why, ApiError):
        return why
    return errors.forbidden(why, group=GROUP, resource=request.resource.plural, name=name)


def _role(
    user: UserInfo,
    role: Object,
    request: AdmissionRequest,
    index: RbacIndex,
    authorize: Authorizer,
    cluster: str,
    name: str,
) -> str | None:
    if _may(authorize, user, "escalate", request.resource, request.namespace, name, cluster):
        return None
    gathers = role.get("aggregationRule") or (request.old or {}).get("aggregationRule")
    if gathers and objection(index, cluster, user, "", _EVERYTHING) is not None:
        return "must have cluster-admin privileges to use the aggregationRule"
    return objection(index, cluster, user, request.namespace, rules_of(role))


def _binding(
    user: UserInfo, binding: Object, request: AdmissionRequest, index: RbacIndex, authorize: Authorizer, cluster: str
) -> str | ApiError | None:
    ref = binding.get("roleRef") or {}
    kind, name = str(ref.get("kind") or ""), str(ref.get("name") or "")
    resource = {"Role": ROLES, "ClusterRole": CLUSTER_ROLES}.get(kind)
    if resource is None:
        return f'the role reference has the kind "{kind}", it must be Role or ClusterRole'
    if _may(authorize, user, "bind", resource, request.namespace, name, cluster):
        return None
    rules = index.role_rules(cluster, kind, request.namespace, name)
    if rules is None:
        return errors.not_found(resource.plural, name, group=GROUP)
    return objection(index, cluster, user, request.namespace, rules)


def objection(index: RbacIndex, cluster: str, user: UserInfo, namespace: str, wanted: Iterable[Rule]) -> str | None:
    """What a user lacks of ``wanted`` in a namespace, in Kubernetes' words; None when nothing."""
    permissions = index.permissions(cluster, user, namespace)
    missing = uncovered([grant.rule for grant in permissions.grants], wanted)
    if not missing:
        return None
    groups = " ".join(json.dumps(group, ensure_ascii=False) for group in user.groups)
    lines = "\n".join(sorted({str(rule) for rule in compact(missing)}))
    message = (
        f"user {json.dumps(user.name, ensure_ascii=False)} (groups=[{groups}]) "
        f"is attempting to grant RBAC permissions not currently held:\n{lines}"
    )
    if permissions.problems:
        message += f"; resolution errors: [{', '.join(permissions.problems)}]"
    return message


def _may(
    authorize: Authorizer,
    user: UserInfo,
    verb: str,
    resource: ResourceType,
    namespace: str,
    name: str,
    cluster: str,
) -> bool:
    asked = Attributes(user, verb, GROUP, "*", resource.plural, namespace=namespace, name=name, cluster=cluster)
    return authorize(asked).allowed


def _is_housekeeping(old: Object | None, new: Object) -> bool:
    """An update that grants nothing: owners and finalizers come and go, for the garbage collector."""
    return old is not None and _granting(old) == _granting(new)


def _granting(obj: Object) -> Object:
    metadata = {key: value for key, value in objects.metadata(obj).items() if key not in _HOUSEKEEPING}
    return {**obj, "metadata": metadata}
