"""Custom kinds that may not share a value: the store refuses the second, whoever writes it."""

from __future__ import annotations

import asyncio
from collections import Counter

import orjson

from fleetplane.model.kind.crd import UNIQUE_ANNOTATION
from fleetplane.model.objects import Object
from fleetplane.testing import TestServer, run_virtually, running_server

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DESKS = "/apis/example.com/v1/namespaces/default/desks"


def definition(unique: object = None) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "desks", "singular": "desk", "kind": "Desk", "listKind": "DeskList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    wanted = {"spec.seats": [".spec.room", ".spec.seats[*]"]} if unique is None else unique
    annotations = {UNIQUE_ANNOTATION: orjson.dumps(wanted).decode()}
    return {"metadata": {"name": "desks.example.com", "annotations": annotations}, "spec": spec}


def desk(name: str, room: str, *seats: str) -> Object:
    spec = {"room": room, "seats": list(seats)}
    return {"apiVersion": "example.com/v1", "kind": "Desk", "metadata": {"name": name}, "spec": spec}


async def served(server: TestServer) -> None:
    code, answer = await server.call("POST", CRDS, definition())
    assert code == 201, answer


def test_a_value_is_held_by_one_object_until_it_lets_go() -> None:
    async def story() -> None:
        async with running_server() as server:
            await served(server)
            assert (await server.call("POST", DESKS, desk("a", "red", "1", "2")))[0] == 201

            taken, why = await server.call("POST", DESKS, desk("b", "red", "2", "3"))
            elsewhere, _ = await server.call("POST", DESKS, desk("c", "blue", "2"))

            assert (taken, elsewhere) == (422, 201)
            assert "spec.seats" in why["message"]
            assert "already allocated" in why["message"]
            _, found = await server.call("GET", f"{DESKS}/a")
            found["spec"]["seats"] = ["1"]
            assert (await server.call("PUT", f"{DESKS}/a", found))[0] == 200
            assert (await server.call("POST", DESKS, desk("b", "red", "2", "3")))[0] == 201

    run_virtually(story())


def test_of_many_writers_at_once_one_wins_each_value() -> None:
    async def story() -> None:
        async with running_server() as server:
            await served(server)

            answers = await asyncio.gather(
                *(server.call("POST", DESKS, desk(f"d{number}", "red", str(number % 4))) for number in range(32))
            )

            assert Counter(code for code, _ in answers) == {201: 4, 422: 28}

    run_virtually(story())


def test_a_definition_whose_annotation_cannot_be_read_is_refused() -> None:
    async def story() -> None:
        async with running_server() as server:
            for wrong in (["spec.seats"], {"spec.seats": "spec"}, {"spec.seats": []}, {"spec.seats": [".a["]}):
                code, answer = await server.call("POST", CRDS, definition(wrong))
                assert code == 422, wrong
                assert UNIQUE_ANNOTATION in answer["message"]

    run_virtually(story())
