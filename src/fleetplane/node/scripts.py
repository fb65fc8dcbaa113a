"""What a simulated container's command would do: a handful of shell words, understood without running anything.

``sleep 5``, ``true``, ``false``, ``echo``, ``exit 3`` and short sequences of them (``sh -c "echo hi; exit 2"``) cover
what manifests and tests use to make a container live, speak and fail. Everything else is not understood, and the
simulation's defaults apply. Never executes anything and never looks at the host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

FOREVER = float("inf")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_SCALE = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_SHELLS = {"sh", "bash", "ash", "dash"}
_MAX_WORDS = 200
_FOR_EVER_PROGRAMS = {"pause", "nginx", "httpd"}


@dataclass(frozen=True, slots=True)
class Script:
    """Runs for ``seconds`` and ends with ``exit_code``, having written ``output``."""

    seconds: float = 0.0
    exit_code: int = 0
    output: bytes = b""


def parse_duration(text: str) -> float:
    """``1.5``, ``200ms``, ``1m30s``, ``infinity`` as seconds. Raises ValueError."""
    text = text.strip()
    if text in {"infinity", "inf", "forever"}:
        return FOREVER
    total, end = 0.0, 0
    for found in _DURATION.finditer(text):
        if found.start() != end:
            break
        total += float(found[1]) * _SCALE[found[2]]
        end = found.end()
    if not text or end != len(text):
        raise ValueError(f"{text!r} is not a duration such as 5, 200ms or 1m30s")
    return total


def understand(command: Sequence[str]) -> Script | None:
    """What the command would do, or None when it is not one of the understood few."""
    if not command:
        return None
    program = command[0].rsplit("/", 1)[-1]
    if program == "busybox" and len(command) > 1:
        return understand(command[1:])
    if program in _SHELLS:
        flags = [word for word in command[1:-1] if word.startswith("-")]
        if len(command) == 2 + len(flags) and any("c" in flag for flag in flags):
            return _sequence(command[-1])
        return None
    return _simple(list(command))


def _sequence(text: str) -> Script | None:
    """A list of simple commands joined by ``;``, ``&&`` or new lines; ``&&`` stops at the first failure."""
    if len(text) > 4096 or any(
        mark in text for mark in ("|", "$", "`", "<", "(", "{", "if ", "for ", "while ", "trap")
    ):
        return _endless_loop(text)
    lexer = shlex.shlex(text.replace("\n", ";"), posix=True, punctuation_chars=";&>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return None
    if len(words) > _MAX_WORDS:
        return None
    seconds, code, output = 0.0, 0, b""
    current: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= {";"} or word == "&&":
            if current:
                if current[0] == "exec":
                    current = current[1:]
                done = _simple(current)
                if done is None:
                    return None
                seconds, code, output = seconds + done.seconds, done.exit_code, output + done.output
                if current[0] == "exit" or seconds == FOREVER or (word == "&&" and code != 0):
                    return Script(seconds, code, output)
            current = []
        elif set(word) <= {"&", ">"}:
            return None
        else:
            current.append(word)
    return Script(seconds, code, output)


def _endless_loop(text: str) -> Script | None:
    """``while true; do …; done`` never ends, whatever it does."""
    return Script(FOREVER) if re.match(r"\s*while\s+(true|:|sleep\s+\S+)\s*;", text) else None


def _simple(words: list[str]) -> Script | None:
    if not words:
        return None
    program, rest = words[0].rsplit("/", 1)[-1], words[1:]
    try:
        if program in {"true", ":"}:
            return Script()
        if program == "false":
            return Script(exit_code=1)
        if program == "exit":
            return Script(exit_code=int(rest[0]) & 255 if rest else 0)
        if program == "sleep" and rest:
            return Script(seconds=sum(parse_duration(word) for word in rest))
        if program == "tail" and rest[:1] == ["-f"]:
            return Script(FOREVER)
    except ValueError:
        return None
    if program == "echo":
        newline = rest[:1] != ["-n"]
        shown = " ".join(rest if newline else rest[1:])
        return Script(output=(shown + ("\n" if newline else "")).encode())
    if program in _FOR_EVER_PROGRAMS:
        return Script(FOREVER)
    return None
