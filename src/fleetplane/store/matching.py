"""Which objects a selection is about.

One definition, used by the watch fan-out of every engine and by tests as the reference for the engines' queries.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetplane.store.protocol import Event, Key, Selection, Term, TermMatch

_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def in_scope(selection: Selection, key: Key) -> bool:
    """Whether the key lies within the selection, its terms aside."""
    return (
        selection.resource == key.resource
        and selection.group == key.group
        and (selection.cluster is None or selection.cluster == key.cluster)
        and (selection.namespace is None or selection.namespace == key.namespace)
        and (selection.name is None or selection.name == key.name)
    )


def has_terms(matches: Sequence[TermMatch], terms: Sequence[Term]) -> bool:
    """Whether the terms satisfy every match."""
    return all(_found(match, terms) for match in matches)


def _found(match: TermMatch, terms: Sequence[Term]) -> bool:
    if not match.prefix:
        return (match.name, match.value) in terms
    return any(name == match.name and value.startswith(match.value) for name, value in terms)


def concerns(selection: Selection, event: Event) -> bool:
    """Whether a watcher of the selection must see the event: the object matches now, or did before."""
    if not in_scope(selection, event.record.key):
        return False
    if not selection.matches or has_terms(selection.matches, event.record.terms):
        return True
    return event.previous is not None and has_terms(selection.matches, event.previous.terms)


def successor(prefix: str) -> str | None:
    """The smallest string greater than every string with this prefix, in code point order; ``None`` if there is none.

    Surrogates are skipped, since they cannot be stored as UTF-8.
    """
    while prefix:
        following = ord(prefix[-1]) + 1
        if following in _SURROGATES:
            following = _SURROGATES.stop
        if following <= _LAST:
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return None
