"""What a list or watch is narrowed to: label and field selectors, mapped onto index terms where that is possible.

Equality on labels and on the fields a kind indexes becomes a ``TermMatch`` the store answers without reading anything
else. What remains is decided per record: on the record's terms where they suffice, on the decoded object otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from fleetplane.apiserver.registry import Served
from fleetplane.apiserver.storage import FIELD_TERM, LABEL_TERM, labels_in
from fleetplane.model import errors
from fleetplane.model.selectors import FieldSelector, LabelSelector
from fleetplane.store.protocol import Record, Selection, TermMatch

Matcher = Callable[[Record], bool]
_OWN_FIELDS = ("metadata.name", "metadata.namespace")


@dataclass(slots=True)
class Narrowed:
    """``matches`` is None when the store's selection alone decides."""

    selection: Selection
    matches: Matcher | None


def narrow(
    served: Served,
    cluster: str | None,
    namespace: str,
    query: Mapping[str, str],
    *,
    name: str = "",
) -> Narrowed:
    """The selection a request describes. Raises ApiError 400 for selectors that cannot be read or are not supported."""
    labels = _label_selector(query.get("labelSelector") or "")
    fields = _field_selector(query.get("fieldSelector") or "")
    term_matches: list[TermMatch] = []
    matchers: list[Matcher] = []
    if labels is not None:
        equal = labels.equality_terms()
        term_matches += [TermMatch(LABEL_TERM + key, value) for key, value in equal]
        if len(equal) < len(labels.requirements):
            matchers.append(lambda record: labels.matches(labels_in(record.terms)))
    for field, operator, value in fields:
        if operator == "=" and field == "metadata.name":
            name = name or value
            if name != value:
                matchers.append(lambda _record: False)
        elif operator == "=" and field == "metadata.namespace" and not namespace:
            namespace = value
        else:
            _select_field(served, field, operator, value, term_matches, matchers)
    selection = Selection(
        served.storage.group,
        served.storage.plural,
        cluster,
        (namespace or None) if served.type.namespaced else None,
        name or None,
        tuple(term_matches),
    )
    return Narrowed(selection, _all(matchers))


def _select_field(
    served: Served, field: str, operator: str, value: str, term_matches: list[TermMatch], matchers: list[Matcher]
) -> None:
    getter = served.behaviour.fields.get(field)
    term = FIELD_TERM + field
    wanted = operator == "="
    if field in _OWN_FIELDS:
        index = 4 if field == "metadata.name" else 3
        matchers.append(lambda record: (record.key[index] == value) is wanted)
    elif field in served.behaviour.indexed_fields:
        if wanted:
            term_matches.append(TermMatch(term, value))
        else:
            matchers.append(lambda record: (term, value) not in record.terms)
    elif getter is not None:
        read = getter
        matchers.append(lambda record: (read(orjson.loads(record.value)) == value) is wanted)
    elif served.custom or served.behaviour.fields or served.behaviour.indexed_fields:
        raise errors.bad_request(f"field label not supported: {field}")
    else:
        known = ", ".join(f'"{one}"' for one in _OWN_FIELDS)
        raise errors.bad_request(f'"{field}" is not a known field selector: only {known}')


def _all(matchers: list[Matcher]) -> Matcher | None:
    if not matchers:
        return None
    if len(matchers) == 1:
        return matchers[0]
    return lambda record: all(matcher(record) for matcher in matchers)


def _label_selector(text: str) -> LabelSelector | None:
    if not text:
        return None
    try:
        return LabelSelector.parse(text)
    except ValueError as error:
        raise errors.bad_request(str(error)) from None


def _field_selector(text: str) -> list[tuple[str, str, str]]:
    if not text:
        return []
    try:
        return [(one.field, "!=" if one.negated else "=", one.value) for one in FieldSelector.parse(text).requirements]
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
