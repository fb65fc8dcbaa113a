"""Small things every part of the object algebra needs of plain JSON values.

Bodies come from anyone, so how deep they nest is bounded once, where they are decoded; the algebra recurses along
objects and relies on it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 200
"""How many lists and maps may stand inside one another.

orjson writes at most 254 levels, and managedFields repeats the object's levels a few levels further down.
"""


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and maps nest deeper than ``limit``. A decoder can spare the walk when the text holds no more
    than ``limit`` opening brackets."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for one in level
            if type(one) is dict or type(one) is list
            for item in (one.values() if type(one) is dict else one)
        ]
        if not level:
            return False
    return True


def copied(value: Any) -> Any:
    """A deep copy that shares nothing which can change."""
    return msgspec.to_builtins(value)
