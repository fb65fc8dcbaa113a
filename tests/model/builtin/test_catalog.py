from __future__ import annotations

from itertools import pairwise

from fleetplane.model.builtin import BuiltinResource, builtin_resource, catalog, definition_name, definitions, types
from fleetplane.model.resources import ResourceType


def found(group: str, version: str, plural: str) -> BuiltinResource:
    resource = builtin_resource(group, version, plural)
    assert resource is not None
    return resource


def test_core_comes_first_and_every_group_is_contiguous() -> None:
    groups = [one.type.group for one in catalog()]
    changes = [a for a, b in pairwise(groups) if a != b] + [groups[-1]]

    assert groups[0] == ""
    assert changes[:3] == ["", "apiregistration.k8s.io", "apps"]
    assert len(changes) == len(set(changes))


def test_a_groups_preferred_version_comes_first() -> None:
    seen: set[str] = set()
    for one in catalog():
        if one.type.group not in seen:
            assert one.preferred or one.stored_as[0] != one.type.group
        seen.add(one.type.group)


def test_pods_are_described_as_kubectl_shows_them() -> None:
    pods = found("", "v1", "pods")

    assert pods.type == ResourceType("", "v1", "Pod", "pods", True, "pod", ("po",), ("all",))
    assert pods.verbs == ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    assert {one.name for one in pods.subresources} == {
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
        "status",
    }


def test_subresources_name_the_kind_they_take() -> None:
    eviction = found("", "v1", "pods").subresource("eviction")
    scale = found("apps", "v1", "deployments").subresource("scale")
    token = found("", "v1", "serviceaccounts").subresource("token")

    assert eviction is not None and (eviction.group, eviction.kind, eviction.verbs) == (
        "policy",
        "Eviction",
        ("create",),
    )
    assert scale is not None and (scale.group, scale.version, scale.kind) == ("autoscaling", "v1", "Scale")
    assert token is not None and token.kind == "TokenRequest"


def test_a_second_name_of_an_object_says_where_it_is_stored() -> None:
    assert found("events.k8s.io", "v1", "events").stored_as == ("", "v1")
    assert found("policy", "v1beta1", "poddisruptionbudgets").stored_as == ("policy", "v1")
    assert found("apps", "v1", "deployments").is_storage_version


def test_every_storage_version_is_itself_in_the_catalogue() -> None:
    for one in catalog():
        group, version = one.stored_as
        stored = found(group, version, one.type.plural)
        assert stored.is_storage_version
        assert stored.type.kind == one.type.kind


def test_no_alpha_version_is_served_and_betas_are_only_the_old_aliases() -> None:
    betas = [one for one in catalog() if "beta" in one.type.version]

    assert not [one for one in catalog() if "alpha" in one.type.version]
    assert not [one for one in betas if one.is_storage_version]


def test_constants_are_what_the_data_says() -> None:
    declared = {value for value in vars(types).values() if isinstance(value, ResourceType)}

    assert declared == {one.type for one in catalog() if one.is_storage_version}


def test_every_kind_in_the_catalogue_has_its_definition() -> None:
    for one in catalog():
        resource = one.type
        assert definition_name((resource.group, resource.version, resource.kind)) == one.definition
        kinds = definitions()[one.definition]["x-kubernetes-group-version-kind"]
        assert {"group": resource.group, "version": resource.version, "kind": resource.kind} in kinds
