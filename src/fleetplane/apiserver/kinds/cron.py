"""Whether a cron schedule can be read: five fields, or one of the words for common ones."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS: Final = {
    name: place
    for place, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_DAYS: Final = {name: place for place, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_is_every = re.compile(r"@every (\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+").fullmatch
_MAX_LENGTH: Final = 1024


def schedule_problem(schedule: str) -> str:
    """What is wrong with a schedule, empty when nothing is."""
    if len(schedule) > _MAX_LENGTH:
        return "is too long"
    if schedule.startswith("@"):
        if schedule in _WORDS or _is_every(schedule):
            return ""
        return f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: {schedule}"
    for text, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            problem = _part_problem(part, low, high, words)
            if problem:
                return f"failed to parse the {name} field {text!r}: {problem}"
    return ""


def _part_problem(part: str, low: int, high: int, words: dict[str, int]) -> str:
    values, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        return "the step must be a positive number"
    if values in ("*", "?"):
        return ""
    first, dash, last = values.partition("-")
    found = [_number(one, words) for one in ((first, last) if dash else (first,))]
    if any(one is None for one in found):
        return "a number or name is needed"
    numbers = [one for one in found if one is not None]
    if numbers[0] < low:
        return f"beginning of range ({numbers[0]}) below minimum ({low})"
    if numbers[-1] > high:
        return f"end of range ({numbers[-1]}) above maximum ({high})"
    if numbers[0] > numbers[-1]:
        return f"beginning of range ({numbers[0]}) beyond end of range ({numbers[-1]})"
    return ""


def _number(text: str, words: dict[str, int]) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return words.get(text.lower())
