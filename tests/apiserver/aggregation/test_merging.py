"""Two OpenAPI v2 documents in one."""

from __future__ import annotations

from typing import Any

from tests.apiserver.aggregation.documents import BASE, GADGET, GROUP, META, OWN, VERSION, reference, swagger

from fleetplane.apiserver.aggregation.merging import merge
from fleetplane.apiserver.aggregation.swagger import cut
from fleetplane.model.objects import Object

ONE = f"{BASE}/namespaces/{{namespace}}/gadgets/{{name}}"
KINDS = "x-kubernetes-group-version-kind"


def ours(**definitions: Any) -> Object:
    return {"paths": {"/api": {"get": {"operationId": "readGadget"}}}, "definitions": definitions}


def theirs() -> Object:
    return cut(swagger(), GROUP, VERSION)


def test_what_both_have_alike_is_one() -> None:
    document = ours(**{META: theirs()["definitions"][META]})

    merge(document, [theirs()])

    assert set(document["definitions"]) == {META, GADGET}
    assert document["definitions"][GADGET]["properties"]["metadata"] == reference(META)


def test_what_differs_is_renamed_and_so_is_who_refers_to_it() -> None:
    document = ours(**{META: {"type": "object"}})

    merge(document, [theirs()])

    assert document["definitions"][META] == {"type": "object"}
    assert document["definitions"][f"{META}_v2"] == theirs()["definitions"][META]
    assert document["definitions"][GADGET]["properties"]["metadata"] == reference(f"{META}_v2")


def test_alike_but_referring_to_what_differs_is_not_alike() -> None:
    document = ours(**{META: {"type": "object"}, GADGET: theirs()["definitions"][GADGET]})

    merge(document, [theirs()])

    schema = document["paths"][ONE]["get"]["responses"]["200"]["schema"]
    assert schema == reference(f"{GADGET}_v2")
    assert document["definitions"][f"{GADGET}_v2"]["properties"]["metadata"] == reference(f"{META}_v2")
    assert document["definitions"][GADGET]["properties"]["metadata"] == reference(META)


def test_a_second_server_shares_the_names_of_the_first_where_it_means_the_same() -> None:
    document = ours(**{META: {"type": "object"}})
    second, third = (
        {"paths": {}, "definitions": {name: {"properties": {"metadata": reference(META)}}, META: meta}}
        for name, meta in [("Second", theirs()["definitions"][META]), ("Third", {"type": "string"})]
    )

    merge(document, [theirs(), second, third])

    made = document["definitions"]
    assert set(made) == {META, f"{META}_v2", f"{META}_v3", GADGET, "Second", "Third"}
    assert made["Second"]["properties"]["metadata"] == reference(f"{META}_v2")
    assert made["Third"]["properties"]["metadata"] == reference(f"{META}_v3")


def test_kinds_are_no_difference_and_are_put_together() -> None:
    delete = {"group": "apps", "version": "v1", "kind": "DeleteOptions"}
    mine = theirs()["definitions"][GADGET] | {KINDS: [delete]}
    kept = [delete]
    document = ours(**{META: theirs()["definitions"][META], GADGET: mine})

    merge(document, [theirs()])

    assert document["definitions"][GADGET][KINDS] == [delete, OWN]
    assert kept == [delete]


def test_our_paths_stay_ours() -> None:
    document = ours()
    document["paths"][ONE] = {"get": {"description": "ours"}}

    merge(document, [theirs()])

    assert document["paths"][ONE] == {"get": {"description": "ours"}}


def test_an_operation_id_is_nobodys_second() -> None:
    document = ours()

    merge(document, [theirs()])

    assert "operationId" not in document["paths"][ONE]["get"]


def test_a_document_that_took_every_name_hides_no_other() -> None:
    names = {f"{META}_v{number}": {"type": "string"} for number in range(2, 100)}
    document = ours(**{META: {"type": "object"}, **names})
    other = {"paths": {"/apis/other.example.com/v1/x": {}}, "definitions": {}}

    merge(document, [theirs(), other])

    assert ONE not in document["paths"]
    assert "/apis/other.example.com/v1/x" in document["paths"]
