"""Label and field selectors: what they select, how they are written, what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.selectors import (
    FieldRequirement,
    FieldSelector,
    LabelSelector,
    Operator,
    Requirement,
    validate_label_selector,
)

WEB = {"app": "web", "tier": "front", "replicas": "3"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier = front", True),
        ("app=db", False),
        ("app!=db", True),
        ("missing!=x", True),
        ("app in (db, web)", True),
        ("app notin (db,web)", False),
        ("missing notin (a)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("replicas>2", True),
        ("replicas > 3", False),
        ("replicas<4", True),
        ("app>1", False),
        ("missing<4", False),
        ("app=web,app=db", False),
        ("missing=", False),
        ("in in (in,notin)", False),
    ],
)
def test_what_a_label_selector_selects(text: str, expected: bool) -> None:
    assert LabelSelector.parse(text).matches(WEB) is expected


def test_an_empty_place_in_a_set_is_the_empty_value() -> None:
    assert LabelSelector.parse("a in (,b,)").requirements == (Requirement("a", Operator.IN, ("", "b")),)
    assert LabelSelector.parse("a in ()").matches({"a": ""})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a b c", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("!,a", "unable to parse requirement: found ',', expected: identifier"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
    ],
)
def test_bad_grammar_says_what_was_expected(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        LabelSelector.parse(text)


@pytest.mark.parametrize("text", ["-a=b", "a=-b", "a/b/c", "a>x", "a>99999999999999999999"])
def test_bad_keys_and_values_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unable to parse requirement: "):
        LabelSelector.parse(text)


def test_a_structured_selector() -> None:
    selector = LabelSelector.from_object(
        {
            "matchLabels": {"tier": "front"},
            "matchExpressions": [
                {"key": "app", "operator": "In", "values": ["web"]},
                {"key": "canary", "operator": "DoesNotExist"},
            ],
        }
    )

    assert selector.matches(WEB)
    assert not selector.matches({**WEB, "canary": ""})
    assert selector.equality_terms() == [("app", "web"), ("tier", "front")]
    assert str(selector) == "app in (web),!canary,tier=front"


def test_no_structured_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not LabelSelector.from_object(None).matches({})
    assert LabelSelector.from_object({}).matches({})


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ({"key": "a", "operator": "Near"}, '"Near" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values set can't be empty"),
        ({"key": "a", "operator": "Exists", "values": ["b"]}, "values set must be empty"),
    ],
)
def test_bad_expressions_are_refused(expression: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LabelSelector.from_object({"matchExpressions": [expression]})


def test_a_selector_inside_an_object_is_validated_field_by_field() -> None:
    errors = validate_label_selector(
        {
            "matchLabels": {"a": "-"},
            "matchExpressions": [{"key": "b", "operator": "In"}, {"key": "c", "operator": "x"}],
        },
        "spec.selector",
    )

    assert [error.field for error in errors] == [
        "spec.selector.matchLabels",
        "spec.selector.matchExpressions[0].values",
        "spec.selector.matchExpressions[1].operator",
    ]


WORDS = st.from_regex(r"[a-z]([a-z_.-]{0,4}[a-z0-9])?", fullmatch=True)
VALUES = st.from_regex(r"([A-Z0-9]([a-z_.-]{0,4}[a-z0-9])?)?", fullmatch=True)
SETS = st.lists(VALUES, min_size=1, max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
REQUIREMENTS = st.one_of(
    st.builds(Requirement, WORDS, st.sampled_from([Operator.EQUALS, Operator.NOT_EQUALS]), st.tuples(VALUES)),
    st.builds(Requirement, WORDS, st.sampled_from([Operator.IN, Operator.NOT_IN]), SETS),
    st.builds(Requirement, WORDS, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST]), st.just(())),
    st.builds(
        Requirement,
        WORDS,
        st.sampled_from([Operator.GREATER_THAN, Operator.LESS_THAN]),
        st.tuples(st.integers(0, 2**63 - 1).map(str)),
    ),
)
SELECTORS = st.builds(LabelSelector, st.lists(REQUIREMENTS, max_size=5))


@given(SELECTORS)
def test_a_selector_is_read_as_it_is_written(selector: LabelSelector) -> None:
    assert LabelSelector.parse(str(selector)) == selector


@given(SELECTORS, st.dictionaries(WORDS, VALUES))
def test_equality_terms_are_necessary(selector: LabelSelector, labels: dict[str, str]) -> None:
    labels |= dict(selector.equality_terms())
    if selector.matches(labels):
        assert all(labels.get(key) == value for key, value in selector.equality_terms())
    assert selector.matches(labels) is all(one.matches(labels) for one in selector.requirements)


@given(st.text(alphabet="a1 =!(),<>in-\t\n", max_size=30))
def test_no_text_does_worse_than_a_value_error(text: str) -> None:
    try:
        selector = LabelSelector.parse(text)
    except ValueError:
        return
    assert LabelSelector.parse(str(selector)) == selector


def test_field_selectors() -> None:
    selector = FieldSelector.parse("metadata.name=a,status.phase!=Failed,spec.nodeName==")

    assert selector.matches({"metadata.name": "a", "status.phase": "Running"})
    assert not selector.matches({"metadata.name": "a", "status.phase": "Failed"})
    assert not selector.matches({"metadata.name": "a", "spec.nodeName": "n"})
    assert selector.equality_terms() == [("metadata.name", "a"), ("spec.nodeName", "")]
    assert FieldSelector.parse("").is_everything


def test_field_values_are_escaped() -> None:
    selector = FieldSelector.parse(r"a=x\,y\=z\\")

    assert selector.requirements == (FieldRequirement("a", r"x,y=z" + "\\"),)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nothing", "invalid selector: 'nothing'; can't understand 'nothing'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_bad_field_selectors(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        FieldSelector.parse(text)


FIELD_REQUIREMENTS = st.builds(FieldRequirement, WORDS, st.text(max_size=8), st.booleans())


@given(st.lists(FIELD_REQUIREMENTS, max_size=4).map(lambda found: FieldSelector(tuple(found))))
def test_a_field_selector_is_read_as_it_is_written(selector: FieldSelector) -> None:
    assert FieldSelector.parse(str(selector)) == selector
