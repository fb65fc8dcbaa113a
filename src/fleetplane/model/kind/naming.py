"""How the names of a kind follow from each other."""

from __future__ import annotations


def camel_case(name: str) -> str:
    """``min_ready_seconds`` -> ``minReadySeconds``; a trailing underscore (``from_``) only avoids a keyword."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def plural_of(word: str) -> str:
    """The regular English plural, as code generators form it."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in set("aeiou"):
        return word[:-1] + "ies"
    return word + "s"


def own_doc(cls: type) -> str:
    """The class's own docstring on one line; a View's is not its children's."""
    text = cls.__dict__.get("__doc__") or ""
    return " ".join(text.split())
