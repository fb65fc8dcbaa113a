"""JSONPath as kubectl and CRDs speak it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.jsonpath import JsonPath, Template

POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "a", "annotations": {"x.io/y": "1"}, "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c0", "ports": [80, 81]}, {"name": "c1", "ports": []}], "nodeName": None},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "count": 3},
            {"type": "Initialized", "status": "False", "count": 5},
        ]
    },
}
LIST = {"kind": "List", "items": [POD, {"kind": "Pod", "metadata": {"name": "b"}}]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{.metadata.name}", ["a"]),
        (".metadata.name", ["a"]),
        ("$.metadata.name", ["a"]),
        ("metadata.name", ["a"]),
        ("{@.kind}", ["Pod"]),
        ("{.missing.name}", []),
        ("{.kind.name}", []),
        (r"{.metadata.annotations.x\.io/y}", ["1"]),
        ("{.metadata.annotations['x.io/y']}", ["1"]),
        ('{.metadata["name"]}', ["a"]),
        ("{.spec.containers[0].name}", ["c0"]),
        ("{.spec.containers[-1].name}", ["c1"]),
        ("{.spec.containers[7].name}", []),
        ("{.spec.containers[*].name}", ["c0", "c1"]),
        ("{.spec.containers[*].ports[*]}", [80, 81]),
        ("{.spec.containers[0].ports[1:]}", [81]),
        ("{.spec.containers[0].ports[::2]}", [80]),
        ("{.spec.containers[0].ports[-2:-1]}", [80]),
        ("{.spec.containers[1,0].name}", ["c1", "c0"]),
        ("{.metadata['name','labels']}", ["a", {"app": "web"}]),
        ("{.metadata.labels.*}", ["web"]),
        ("{..name}", ["a", "c0", "c1"]),
        ('{.status.conditions[?(@.type=="Ready")].status}', ["True"]),
        ("{.status.conditions[?( @.type != 'Ready' )].type}", ["Initialized"]),
        ("{.status.conditions[?(@.count>3)].type}", ["Initialized"]),
        ("{.status.conditions[?(@.count<=3)].type}", ["Ready"]),
        ("{.status.conditions[?(@.count>'a')].type}", []),
        ("{.spec.containers[?(@.ports[0])].name}", ["c0"]),
        ("{.spec.nodeName}", [None]),
        ("{}", [POD]),
        ("{.}", [POD]),
        ("{[.kind, .metadata.name]}", ["Pod", "a"]),
    ],
)
def test_what_a_path_finds(path: str, found: list[Any]) -> None:
    assert JsonPath.parse(path).find(POD) == found


@pytest.mark.parametrize(
    "path",
    [
        "{.a",
        "{.a[}",
        "{.a[0}",
        "{.a[x]}",
        "{.a[?(@.b==)]}",
        "{.a[?(@.b]}",
        "{.a b}",
        "{.a[::0]}",
        "." * 20_000,
        "[" * 99,
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="JSONPath"):
        JsonPath.parse(path)


def test_a_plain_path_tells_its_names() -> None:
    assert JsonPath.parse(".spec.nodeName").names == ("spec", "nodeName")
    assert JsonPath.parse(".spec.containers[0]").names is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{.items[*].metadata.name}", "a b"),
        ("{range .items[*]}{.metadata.name}{'\\n'}{end}", "a\nb\n"),
        ('{range .items[*]}[{.metadata.name}, {.missing}]{"\\t"}{end}', "[a, ]\t[b, ]\t"),
        ("{range .items[0].spec.containers[*]}{.name}:{range .ports[*]}{@};{end}{end}", "c0:80;81;c1:"),
        ("{.items[0].metadata.labels}", '{"app":"web"}'),
        ("{.items[*]['kind','metadata']['name']}", "a b"),
        ("{.items[*].metadata['name','namespace']}{.items[0].spec.nodeName}", "a b<nil>"),
        ("{.items[0].spec.containers[0].ports}", "[80,81]"),
        ("kind is {.kind}{'}'}", "kind is List}"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert Template.parse(template).render(LIST) == text


@pytest.mark.parametrize("template", ["{range .items[*]}", "{end}", "{.a", "{range .a}{end}{end}"])
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        Template.parse(template)


def test_recursion_cannot_multiply_without_bound() -> None:
    deep: Any = {"a": [{} for _ in range(200)]}
    for _ in range(200):
        deep = {"a": deep}

    with pytest.raises(ValueError, match="too many values"):
        JsonPath.parse("{..*..*..*..*}").find(deep)


@given(st.text(alphabet="ab.[]{}()?@$*'\"=<>!,:01 \\", max_size=25))
def test_no_text_does_worse_than_a_value_error(text: str) -> None:
    try:
        JsonPath.parse(text).find(POD)
        Template.parse(text).render(POD)
    except ValueError:
        return
