"""The SQL of lists and counts, the same for every engine but for its ``Dialect``.

A list at the newest revision follows the primary key of ``objects``, or that of ``terms`` for one of its matches; any
further matches are tested on the candidates. A list at an older revision adds the rows of ``past`` that were current
then. Every part delivers in key order, so that the database merges and stops at the limit. Parameters are ``?``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.store.matching import successor
from fleetplane.store.protocol import Key, Selection, TermMatch

KEY_IS: Final = "resource = ? AND cluster = ? AND namespace = ? AND name = ?"
ROW: Final = "l.revision, l.uid, l.created, l.encoding, l.terms, l.value"
EVENT: Final = f"l.deleted, l.cluster, l.namespace, l.name, {ROW}, {ROW.replace('l.', 'p.')}"
"""A change and the version before it, from ``_LOG_AND_BEFORE``."""
_LOG_AND_BEFORE: Final = "log l LEFT JOIN log p ON p.revision = l.previous"
_FULL_KEY: Final = "{0}.cluster, {0}.namespace, {0}.name"
_OBJECT_OF_TERM: Final = "o.cluster = t.cluster AND o.namespace = t.namespace AND o.name = t.name"

Query = tuple[str, list[Any]]
Number = int | str
"""What stands for (group, resource) in rows."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What engines say differently.

    ``join(table, alias, condition)`` is what follows a row source to look up, for each of its rows and in their order,
    those of a table. ``terms_hold(matches)`` is the condition that the terms of a row of ``log l`` satisfy some matches.
    ``merges`` tells whether the database merges the ordered parts of a ``UNION ALL`` and stops at the limit by itself.
    """

    join: Callable[[str, str, str], str]
    terms_hold: Callable[[Sequence[TermMatch]], Query]
    merges: bool


class Queries:
    """Builds queries in one dialect. ``driver`` is the match whose index is followed, one of the selection's;
    ``past`` the revision to look at, ``None`` for the newest."""

    def __init__(self, dialect: Dialect) -> None:
        self._terms_hold = dialect.terms_hold
        self._merges = dialect.merges
        self._log_of_object = dialect.join("log", "l", "l.revision = o.revision")
        self._object_of_term = dialect.join("objects", "o", f"o.resource = t.resource AND {_OBJECT_OF_TERM}")

    def page(
        self,
        number: Number,
        selection: Selection,
        driver: TermMatch | None,
        after: Key | None,
        past: int | None,
        limit: int,
    ) -> Query:
        """Key and ``ROW`` of at most ``limit`` objects of a resource, after a key, now or at revision ``past``.

        ``driver`` is the match to follow the index of, one of the selection's.
        """
        order = _order(selection)
        if driver is not None and driver.prefix:
            source, parameters = self._keys_by_prefix(number, selection, driver, after, past)
            sql = (
                f"SELECT {_FULL_KEY.format('t')}, {ROW} FROM ({source} ORDER BY {order} LIMIT ?) t"  # noqa: S608
                f" {self._object_of_term} {self._log_of_object}"
            )
            parameters.append(limit)
        else:
            source, conditions, parameters, key = self._keys(number, selection, driver, after, past)
            if len(selection.matches) > 1:
                self._hold(selection, conditions, parameters)
            sql = f"SELECT {_FULL_KEY.format(key)}, {ROW} FROM {source} {self._log_of_object} WHERE {' AND '.join(conditions)}"  # noqa: S608
        if past is not None:
            more, added = self._superseded(number, selection, after, past, f"{_FULL_KEY.format('o')}, {ROW}")
            if not self._merges:
                sql, more = (f"SELECT * FROM ({part} ORDER BY {order} LIMIT ?) part" for part in (sql, more))  # noqa: S608
                parameters, added = [*parameters, limit], [*added, limit]
            sql, parameters = f"{sql} UNION ALL {more}", parameters + added
        return f"{sql} ORDER BY {order} LIMIT ?", [*parameters, limit]

    def count(
        self, number: Number, selection: Selection, driver: TermMatch | None, after: Key | None, past: int | None
    ) -> Query:
        """How many objects of a resource follow a key, now or at revision ``past``."""
        if driver is not None and driver.prefix:
            source, parameters = self._keys_by_prefix(number, selection, driver, after, past)
            sql = f"SELECT count(*) FROM ({source}) n"  # noqa: S608
        else:
            source, conditions, parameters, _key = self._keys(number, selection, driver, after, past)
            if len(selection.matches) > 1:
                source = f"{source} {self._log_of_object}"
                self._hold(selection, conditions, parameters)
            sql = f"SELECT count(*) FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608
        if past is None:
            return sql, parameters
        more, added = self._superseded(number, selection, after, past, "count(*)")
        return f"SELECT ({sql}) + ({more})", parameters + added

    def key_at(self, number: Number, selection: Selection, offset: int, after: Key | None = None) -> Query:
        """The current key at a position after another, of a selection with at most one, exact, match."""
        source, where, parameters, key = self._members(number, selection, after, None)
        sql = (
            f"SELECT {_FULL_KEY.format(key)} FROM {source} WHERE {where} ORDER BY {_order(selection)} LIMIT 1 OFFSET ?"  # noqa: S608
        )
        return sql, [*parameters, offset]

    def count_between(
        self, number: Number, selection: Selection, after: Key | None, upto: Key | None, enough: int
    ) -> Query:
        """How many current keys lie after one and up to another, counted no further than ``enough``, for the same."""
        source, where, parameters, _key = self._members(number, selection, after, upto)
        return f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {where} LIMIT ?) n", [*parameters, enough]  # noqa: S608

    def _members(
        self, number: Number, selection: Selection, after: Key | None, upto: Key | None
    ) -> tuple[str, str, list[Any], str]:
        """Source, condition, parameters and alias for the current keys of a selection that one index knows."""
        if selection.matches:
            source, key = "terms t", "t"
            conditions, parameters = term_is(key, number, selection.matches[0])
        else:
            source, key = "objects o", "o"
            conditions, parameters = ["o.resource = ?"], [number]
        scope, added = scope_is(key, selection, after, upto)
        return source, " AND ".join(conditions + scope), parameters + added, key

    def estimate(self, number: Number, match: TermMatch, enough: int) -> Query:
        """How many objects have a term, counted no further than ``enough``."""
        conditions, parameters = term_is("t", number, match)
        where = " AND ".join(conditions)
        return f"SELECT count(*) FROM (SELECT 1 FROM terms t WHERE {where} LIMIT {enough}) n", parameters  # noqa: S608

    def events(self, number: Number, selection: Selection, after: int, upto: int) -> Query:
        """``EVENT`` of every change in scope (whatever its terms) with ``after < revision <= upto``, oldest first."""
        scope, added = scope_is("l", selection, None)
        where = " AND ".join(["l.revision > ?", "l.revision <= ?", "l.resource = ?", *scope])
        return f"SELECT {EVENT} FROM {_LOG_AND_BEFORE} WHERE {where} ORDER BY l.revision", [after, upto, number, *added]  # noqa: S608

    def history(self, number: Number, key: Key, limit: int) -> Query:
        """``EVENT`` of the newest changes of a key, newest first.

        A change is known while the version it wrote, or the one it superseded, is.
        """
        at = [number, key.cluster, key.namespace, key.name]
        newest = f"FROM past WHERE {KEY_IS} ORDER BY revision DESC LIMIT ?"
        known = (
            f"SELECT revision FROM objects WHERE {KEY_IS}"  # noqa: S608
            f" UNION SELECT revision FROM (SELECT revision {newest}) n"
            f" UNION SELECT superseded FROM (SELECT superseded {newest}) n"
        )
        sql = f"SELECT {EVENT} FROM {_LOG_AND_BEFORE} WHERE l.revision IN ({known}) ORDER BY l.revision DESC LIMIT ?"  # noqa: S608
        return sql, [*at, *at, limit, *at, limit, limit]

    def _keys(
        self, number: Number, selection: Selection, driver: TermMatch | None, after: Key | None, past: int | None
    ) -> tuple[str, list[str], list[Any], str]:
        """Source, conditions, parameters, and the alias whose key columns are in order, for current objects ``o``."""
        key = "o" if driver is None else "t"
        conditions, parameters = (["o.resource = ?"], [number]) if driver is None else term_is("t", number, driver)
        source = "objects o"
        if driver is not None:
            source = f"terms t {self._object_of_term}"
        scope, added = scope_is(key, selection, after)
        conditions, parameters = conditions + scope, parameters + added
        if past is not None:
            conditions.append("o.revision <= ?")
            parameters.append(past)
        return source, conditions, parameters, key

    def _keys_by_prefix(
        self, number: Number, selection: Selection, driver: TermMatch, after: Key | None, past: int | None
    ) -> Query:
        """Keys of current objects; ``DISTINCT``, since an object may have several values of that prefix."""
        source, conditions, parameters, key = self._keys(number, selection, driver, after, past)
        if len(selection.matches) > 1:
            source = f"{source} {self._log_of_object}"
            self._hold(selection, conditions, parameters)
        elif past is None:
            source = "terms t"  # the index alone can tell
        where = " AND ".join(conditions)
        return f"SELECT DISTINCT {_FULL_KEY.format(key)}, {key}.resource FROM {source} WHERE {where}", parameters  # noqa: S608

    def _hold(self, selection: Selection, conditions: list[str], parameters: list[Any]) -> None:
        condition, added = self._terms_hold(selection.matches)
        conditions.append(condition)
        parameters += added

    def _superseded(self, number: Number, selection: Selection, after: Key | None, past: int, columns: str) -> Query:
        """What was current at revision ``past`` and has been superseded since. The terms index knows nothing of these."""
        scope, added = scope_is("o", selection, after)
        conditions = ["o.resource = ?", *scope, "o.revision <= ?", "o.superseded > ?"]
        parameters: list[Any] = [number, *added, past, past]
        if selection.matches:
            self._hold(selection, conditions, parameters)
        return f"SELECT {columns} FROM past o {self._log_of_object} WHERE {' AND '.join(conditions)}", parameters  # noqa: S608


def _order(selection: Selection) -> str:
    """The columns of the key that the selection leaves open; a planner can be confused by the others."""
    if selection.cluster is None:
        return "1, 2, 3"
    return "2, 3" if selection.namespace is None else "3"


def term_is(alias: str, number: Number, match: TermMatch) -> tuple[list[str], list[Any]]:
    """The conditions on a row of the terms index."""
    conditions = [f"{alias}.resource = ?", f"{alias}.term = ?"]
    parameters: list[Any] = [number, match.name]
    if not match.prefix:
        return [*conditions, f"{alias}.value = ?"], [*parameters, match.value]
    if match.value:
        conditions.append(f"{alias}.value >= ?")
        parameters.append(match.value)
        if (end := successor(match.value)) is not None:
            conditions.append(f"{alias}.value < ?")
            parameters.append(end)
    return conditions, parameters


def scope_is(
    alias: str, selection: Selection, after: Key | None, upto: Key | None = None
) -> tuple[list[str], list[Any]]:
    """The conditions on a key, written so that the primary key serves both ends of the range."""
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, wanted in (
        ("cluster", selection.cluster),
        ("namespace", selection.namespace),
        ("name", selection.name),
    ):
        if wanted is not None:
            conditions.append(f"{alias}.{column} = ?")
            parameters.append(wanted)
    for end, comparison in ((after, ">"), (upto, "<=")):
        if end is None:
            continue
        if selection.cluster is None:
            conditions.append(f"({alias}.cluster, {alias}.namespace, {alias}.name) {comparison} (?, ?, ?)")
            parameters += (end.cluster, end.namespace, end.name)
        elif selection.cluster == end.cluster:
            if selection.namespace is None:
                conditions.append(f"({alias}.namespace, {alias}.name) {comparison} (?, ?)")
                parameters += (end.namespace, end.name)
            elif selection.namespace == end.namespace:
                conditions.append(f"{alias}.name {comparison} ?")
                parameters.append(end.name)
    return conditions, parameters


def rankable(selection: Selection) -> bool:
    """Whether one index knows the keys of the selection, in order: it has no match, or a single exact one."""
    return not selection.matches or (len(selection.matches) == 1 and not selection.matches[0].prefix)


def beyond(selection: Selection, after: Key | None) -> bool:
    """Whether nothing of the selection can follow the key."""
    if after is None or selection.cluster is None:
        return False
    if selection.cluster != after.cluster:
        return selection.cluster < after.cluster
    return selection.namespace is not None and selection.namespace < after.namespace
