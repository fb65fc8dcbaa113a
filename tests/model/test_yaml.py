"""YAML with Kubernetes' rules, and what hostile YAML cannot do."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model import yaml
from fleetplane.model.yaml import YamlError, dump, dump_all, load, load_all


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", True),
        ("yes", True),
        ("n", False),
        ("Off", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("0777", 511),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("08", 8),
        ("1e3", 1000),
        ("1.0", 1),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709551616.0),
        ("1.2.3", "1.2.3"),
        ("1e400", "1e400"),
        ("=", "="),
        ("'on'", "on"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!int '1'", 1),
        ("!!float '1.5'", 1.5),
        ("!!binary aGk=", "hi"),
        ("!custom x", "x"),
        ("[1, [a, {b: c}]]", [1, ["a", {"b": "c"}]]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_what_a_value_means(text: str, value: Any) -> None:
    found = load(f"k: {text}\n")["k"]

    assert found == value
    assert type(found) is type(value)


def test_keys_are_strings() -> None:
    assert load("1: a\ny: b\n1.5: c\n") == {"1": "a", "true": "b", "1.5": "c"}


def test_documents_come_one_by_one_and_empty_ones_are_left_out() -> None:
    documents = load_all(b"a: 1\n---\n# nothing\n---\nb: 2\n...\n")

    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]


def test_json_is_read_as_json() -> None:
    assert load('{"a": "\\ud83d\\ude00", "b": 1.0}') == {"a": "\U0001f600", "b": 1.0}
    assert [one.value for one in load_all('{"a":1}\n{"b":2}\n')] == [{"a": 1}, {"b": 2}]
    assert load("{a: b}") == {"a": "b"}


def test_a_key_that_is_set_twice_is_reported_and_the_last_value_wins() -> None:
    (document,) = load_all("a:\n  b: 1\n  b: 2\n")

    assert document.value == {"a": {"b": 2}}
    assert document.duplicates == ('line 3: key "b" already set in map',)
    assert load_all('{"a": 1, "a": 2}')[0] == ({"a": 2}, ('key "a" already set in map',))


def test_aliases_and_merges() -> None:
    found = load("base: &b {x: 1, z: 2}\nsame: *b\nmore:\n  <<: *b\n  z: 3\nboth:\n  <<: [{x: 9}, *b]\n")

    assert found["same"] == {"x": 1, "z": 2}
    assert found["same"] is not found["base"]
    assert found["more"] == {"x": 1, "z": 3}
    assert found["both"] == {"x": 9, "z": 2}
    assert load("'<<': 1") == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "yaml: line"),
        ("a: b: c", "yaml: line 1: mapping values are not allowed in this context"),
        ("a: *x", "unknown anchor 'x' referenced"),
        ("&a [*a]", "anchor 'a' value contains itself"),
        ("~: 1", "cannot be a key"),
        ("[a]: 1", "cannot be a key"),
        ("a: .nan", "no form in JSON"),
        ("- -.inf", "no form in JSON"),
        ("a: !!int x", "cannot decode"),
        ("a: !!binary '%'", "invalid base64"),
        ("<<: 1", "map merge requires"),
        ("a: \x00", "yaml: "),
        ("\udc00", "yaml: "),
    ],
)
def test_errors_say_where_and_what(text: str, error: str) -> None:
    with pytest.raises(YamlError, match=error):
        load(text)


def test_two_documents_are_not_one() -> None:
    with pytest.raises(YamlError, match="expected one document, found 2"):
        load("a: 1\n---\nb: 2\n")


def test_a_billion_laughs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    start = time.perf_counter()

    with pytest.raises(YamlError, match="excessive aliasing"):
        load("\n".join(lines))

    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("text", ["[" * 3000, '{"a":' * 3000, "- " * 3000, '{"a":' * 600 + "1" + "}" * 600])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match=r"deeper|line|nest"):
        load(text)


def test_a_long_number_is_text() -> None:
    assert load("a: " + "9" * 5000) == {"a": "9" * 5000}


def test_objects_are_written_for_people() -> None:
    text = dump({"kind": "ConfigMap", "apiVersion": "v1", "data": {"b": "on", "a": "two\nlines\n", "c": "1e3"}})

    assert text == ("apiVersion: v1\ndata:\n  a: |\n    two\n    lines\n  b: 'on'\n  c: '1e3'\nkind: ConfigMap\n")
    assert dump_all([{"a": 1}, {"b": []}]) == "a: 1\n---\nb: []\n"


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.just("\n"), max_size=12) | st.sampled_from(
    ["yes", "0x1", "1_0", "~", "<<", "=", "1:2", "2001-01-01", "- a", "#", "a: b", "!x", "&a", "*a", "'", '"', "1e5"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9).map(lambda x: x + 0.5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_is_read_back(obj: dict[str, Any]) -> None:
    assert load(dump(obj)) == (obj or {})


@given(st.text(alphabet="ab:-?[]{}&*!|>'\"#%@`,~<0 \n\t", max_size=40))
def test_no_text_does_worse_than_a_yaml_error(text: str) -> None:
    try:
        load_all(text)
    except YamlError:
        return


def test_plain_scalars_resolve_without_documents() -> None:
    assert yaml.resolve("0b11") == 3
