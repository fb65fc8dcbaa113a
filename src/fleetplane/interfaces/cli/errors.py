"""How a command ends badly: one sentence on stderr that says what to do, exit code 1; usage errors are click's, exit code 2."""

from __future__ import annotations


class CommandError(Exception):
    """Ends a command with one sentence on stderr and exit code 1."""


class UsageError(CommandError):
    """The command line itself is wrong, whatever the server has; exit code 2."""


class ExitWith(Exception):
    """Ends a command with this exit code and no further words: what was wrong has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
