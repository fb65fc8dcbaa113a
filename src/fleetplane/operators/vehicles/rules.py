"""When do rules fire? An engine over signal samples, pure and fast: no I/O, no clock of its own, no objects.

A rule is an expression over conditions; it fires when the expression begins to hold. Not binds tightest, then And, then
Or. A condition compares the last sample of one signal, and answers in four steps: comparison with hysteresis, debounce
(a change counts once it has lasted), hold (what holds, holds for a while), staleness (a silent signal does not hold).

A sample costs one look-up and one comparison per condition on that signal; expressions are only evaluated when a condition
changed. Times are seconds of one monotonic clock and must not go back. ``tick`` does what is due without a sample.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

_COMPARISONS: Final = {
    "greaterthan": ">",
    "greaterthanorequalto": ">=",
    "greaterorequal": ">=",
    "equal": "==",
    "equalto": "==",
    "smallerorequal": "<=",
    "smallerthanorequalto": "<=",
    "smallerthan": "<",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "le": "<=",
    "lt": "<",
}


class RuleError(ValueError):
    """The rule cannot be understood; the message says which part and what is possible."""


class Condition(NamedTuple):
    """``value`` is a number, a text or a truth value; ``comparison`` one of ``> >= == <= <``."""

    name: str
    topic: str
    comparison: str
    value: float | str | bool
    hysteresis: float = 0.0
    debounce: float = 0.0
    hold: float = 0.0
    staleness: float = 0.0


class Unit(NamedTuple):
    negated: bool
    name: str
    post: str
    """``and``, ``or``, or empty on the last."""


class Rule(NamedTuple):
    conditions: tuple[Condition, ...]
    units: tuple[Unit, ...]
    once: bool = True
    priority: int = 3


def comparison_of(text: str) -> str:
    """Whatever its spelling (``smaller or Equal``). Raises RuleError."""
    word = "".join(text.split()).replace("_", "").replace("-", "").lower()
    if word not in _COMPARISONS:
        raise RuleError(
            f"{text!r} is no comparison; there are GreaterThan, GreaterThanOrEqualTo, Equal, "
            "SmallerThanOrEqualTo and SmallerThan"
        )
    return _COMPARISONS[word]


def value_of(value: Any) -> float | str | bool:
    """Samples and values mean the same thing when they read the same: ``"20"`` is 20, ``"true"`` is true."""
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return float(value)
    text = str(value)
    if text in {"true", "True"}:
        return True
    if text in {"false", "False"}:
        return False
    try:
        return float(text)
    except ValueError:
        return text


def rule_of(spec: Mapping[str, Any], elsewhere: Mapping[str, Mapping[str, Any]] | None = None) -> Rule:
    """The rule a manifest means. ``elsewhere``: conditions that other rules of the namespace define, by name.

    Raises RuleError.
    """
    defined: dict[str, Mapping[str, Any]] = {}
    for one in [spec.get("condition"), *(spec.get("conditionDefinitions") or ())]:
        if one is not None:
            defined[str(one.get("conditionName") or "")] = one
    single = spec.get("condition")
    combined = (spec.get("conditions") or {}).get("conditionUnits")
    if combined:
        units = _units(combined)
    elif single is not None:
        units = (Unit(False, str(single.get("conditionName") or ""), ""),)
    else:
        units = ()
    conditions = []
    for name in dict.fromkeys(unit.name for unit in units):
        found = defined.get(name) or (elsewhere or {}).get(name)
        if found is None:
            raise RuleError(f"there is no condition named {name!r}; define it in condition or conditionDefinitions")
        conditions.append(_condition(name, found))
    life_time = str(spec.get("lifeTime") or "OneTime").lower()
    if life_time not in {"onetime", "sticky"}:
        raise RuleError(f"lifeTime {spec.get('lifeTime')!r} is neither OneTime nor sticky")
    return Rule(tuple(conditions), units, life_time == "onetime", int(spec.get("priority") or 3))


def defined_by(spec: Mapping[str, Any]) -> set[str]:
    """Names of the conditions that a rule defines, for itself and for others of its namespace."""
    every = [spec.get("condition"), *(spec.get("conditionDefinitions") or ())]
    return {str(one.get("conditionName") or "") for one in every if one is not None}


def named_by(spec: Mapping[str, Any]) -> set[str]:
    """Names of the conditions that a rule combines."""
    units = (spec.get("conditions") or {}).get("conditionUnits") or ()
    return {str(one.get("conditionsValue") or "") for one in units}


def _units(units: Sequence[Mapping[str, Any]]) -> tuple[Unit, ...]:
    made = []
    for index, one in enumerate(units):
        pre = str(one.get("conditionsPreOperator") or "").lower()
        post = str(one.get("conditionsPostOperator") or "").lower()
        last = index == len(units) - 1
        if pre not in {"", "none", "not"}:
            raise RuleError(f"conditionsPreOperator {pre!r} is neither Not nor None")
        if post not in ({"", "none"} if last else {"and", "or"}):
            where = "is empty on the last unit" if last else "is And or Or on all units but the last"
            raise RuleError(f"conditionsPostOperator {post!r}: it {where}")
        made.append(Unit(pre == "not", str(one.get("conditionsValue") or ""), "" if last else post))
    return tuple(made)


def _condition(name: str, spec: Mapping[str, Any]) -> Condition:
    value = value_of(spec.get("conditionValue"))
    comparison = comparison_of(str(spec.get("conditionComparison") or ""))
    if comparison != "==" and not _is_number(value):
        raise RuleError(f"condition {name!r} compares by size with {value!r}, which is no number")
    return Condition(
        name,
        str(spec.get("conditionTopic") or ""),
        comparison,
        value,
        float(spec.get("hysteresis") or 0),
        float(spec.get("debounceSeconds") or 0),
        float(spec.get("holdSeconds") or 0),
        float(spec.get("stalenessSeconds") or 0),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(condition: Condition) -> Callable[[Any, bool], bool]:
    """(sample, held before) to whether it holds, hysteresis included."""
    value, back = condition.value, condition.hysteresis
    if not _is_number(value):
        return lambda sample, _held: bool(type(sample) is type(value) and sample == value)
    limit = float(value)
    match condition.comparison:
        case ">":
            return lambda sample, held: type(sample) is float and (sample > limit or (held and sample > limit - back))
        case ">=":
            return lambda sample, held: type(sample) is float and sample >= (limit - back if held else limit)
        case "<":
            return lambda sample, held: type(sample) is float and (sample < limit or (held and sample < limit + back))
        case "<=":
            return lambda sample, held: type(sample) is float and sample <= (limit + back if held else limit)
        case _:
            return lambda sample, held: (
                type(sample) is float and (abs(sample - limit) <= back if held else sample == limit)
            )


@dataclass(slots=True)
class _State:
    """One condition of one rule. ``raw`` is what the comparison says, ``holds`` what counts."""

    condition: Condition
    rule: _Running
    compare: Callable[[Any, bool], bool]
    raw: bool = False
    holds: bool = False
    heard: float = float("-inf")
    held_since: float = float("-inf")
    changed_at: float = float("-inf")
    plain: bool = True
    known: bool = False
    silence_due: bool = False


@dataclass(slots=True, eq=False)
class _Running:
    key: Hashable
    rule: Rule
    states: dict[str, _State] = field(default_factory=dict)
    groups: list[list[tuple[_State, bool]]] = field(default_factory=list)
    holds: bool = False
    fired: int = 0
    gone: bool = False

    def evaluate(self) -> bool:
        """What is not known holds neither plainly nor negated."""
        return any(all(state.known and state.holds is not negated for state, negated in group) for group in self.groups)


class Engine:
    """Rules by key. ``feed`` and ``tick`` answer the keys of rules that fire, the highest priority first."""

    def __init__(self) -> None:
        self._rules: dict[Hashable, _Running] = {}
        self._by_topic: dict[str, list[_State]] = {}
        self._due: list[tuple[float, int, _State]] = []
        self._count = 0

    def set(self, key: Hashable, rule: Rule, *, fired: int = 0) -> None:
        """Add a rule or replace it by a new form; the same form again changes nothing."""
        known = self._rules.get(key)
        if known is not None and known.rule == rule:
            known.fired = max(known.fired, fired)
            return
        self.remove(key)
        running = _Running(key, rule, fired=fired)
        for one in rule.conditions:
            plain = not (one.debounce or one.hold or one.staleness)
            state = _State(one, running, compare(one), plain=plain)
            running.states[one.name] = state
            self._by_topic.setdefault(one.topic, []).append(state)
        group: list[tuple[_State, bool]] = []
        for unit in rule.units:
            group.append((running.states[unit.name], unit.negated))
            if unit.post != "and":
                running.groups.append(group)
                group = []
        self._rules[key] = running

    def remove(self, key: Hashable) -> None:
        running = self._rules.pop(key, None)
        if running is None:
            return
        running.gone = True
        for state in running.states.values():
            states = self._by_topic[state.condition.topic]
            states.remove(state)
            if not states:
                del self._by_topic[state.condition.topic]

    def holds(self, key: Hashable) -> bool:
        running = self._rules.get(key)
        return running is not None and running.holds

    def __contains__(self, key: object) -> bool:
        return key in self._rules

    @property
    def topics(self) -> Iterable[str]:
        return self._by_topic.keys()

    @property
    def due_at(self) -> float | None:
        """When ``tick`` has something to do."""
        return self._due[0][0] if self._due else None

    def feed(self, topic: str, value: Any, now: float) -> list[Hashable]:
        """A sample. ``value`` has gone through ``value_of``."""
        states = self._by_topic.get(topic)
        if states is None:
            return []
        changed: list[_Running] | None = None
        for state in states:
            raw = state.compare(value, state.raw)
            if state.plain:
                if raw is not state.holds or not state.known:
                    state.raw = state.holds = raw
                    state.known = True
                    changed = [*(changed or ()), state.rule]
                continue
            if self._careful(state, raw, now):
                changed = [*(changed or ()), state.rule]
        return self._fire(changed) if changed else []

    def tick(self, now: float) -> list[Hashable]:
        """What time alone changes: debounces that end, holds that run out, signals that fall silent."""
        changed = []
        while self._due and self._due[0][0] <= now:
            _, _, state = heapq.heappop(self._due)
            if state.rule.gone:
                continue
            if state.silence_due and now < (silent := state.heard + state.condition.staleness):
                self._later(state, silent)
            else:
                state.silence_due = False
            if self._settle(state, now):
                changed.append(state.rule)
        return self._fire(changed) if changed else []

    def _careful(self, state: _State, raw: bool, now: float) -> bool:
        state.heard = now
        if raw is not state.raw:
            state.raw, state.changed_at = raw, now
        if state.condition.staleness and not state.silence_due:
            state.silence_due = True  # one look ahead is enough, however many samples come
            self._later(state, now + state.condition.staleness)
        first, state.known = not state.known, True
        return self._settle(state, now) or first

    def _settle(self, state: _State, now: float) -> bool:
        """Take over what the comparison says where debounce, hold and staleness let it; whether that changed anything."""
        condition = state.condition
        if condition.staleness and now - state.heard >= condition.staleness:
            # Silence is not debounced, and nothing is held on the word of a silent signal.
            was_known, state.known, state.raw = state.known, False, False
            state.holds = False
            return was_known
        wanted = state.raw
        if wanted is state.holds:
            return False
        if condition.debounce and now < state.changed_at + condition.debounce:
            self._later(state, state.changed_at + condition.debounce)
            return False
        if not wanted and condition.hold and now < state.held_since + condition.hold:
            self._later(state, state.held_since + condition.hold)
            return False
        state.holds = wanted
        if wanted:
            state.held_since = now
        return True

    def _later(self, state: _State, when: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, state))

    def _fire(self, changed: Iterable[_Running]) -> list[Hashable]:
        fired = []
        for running in dict.fromkeys(changed):
            before, running.holds = running.holds, running.evaluate()
            if running.holds and not before and not (running.rule.once and running.fired):
                running.fired += 1
                fired.append(running)
        fired.sort(key=lambda one: one.rule.priority)
        return [one.key for one in fired]
