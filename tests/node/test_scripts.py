"""Commands a simulated container understands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.node.scripts import FOREVER, Script, parse_duration, understand


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["true"], Script()),
        (["/bin/false"], Script(exit_code=1)),
        (["sleep", "5"], Script(5)),
        (["sleep", "infinity"], Script(FOREVER)),
        (["echo", "hi"], Script(output=b"hi\n")),
        (["sh", "-c", "echo hi; sleep 1; exit 3"], Script(1, 3, b"hi\n")),
        (["sh", "-ec", "false && echo no"], Script(0, 1)),
        (["busybox", "sleep", "2"], Script(2)),
        (["sh", "-c", "exec sleep 9"], Script(9)),
        (["sh", "-c", "while true; do date; sleep 1; done"], Script(FOREVER)),
        (["sh", "-c", "echo $HOME"], None),
        (["python", "app.py"], None),
        ([], None),
    ],
)
def test_commands(command: list[str], expected: Script | None) -> None:
    assert understand(command) == expected


@pytest.mark.parametrize(("text", "seconds"), [("1.5", 1.5), ("200ms", 0.2), ("1m30s", 90), ("infinity", FOREVER)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "-1", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=60))
def test_anything_may_be_asked(words: list[str], text: str) -> None:
    understand(words)
    understand(["sh", "-c", text])
