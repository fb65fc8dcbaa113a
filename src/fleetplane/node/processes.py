"""Running a program of the host to its end: with a list of words, never through a shell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class CommandFailure(Exception):
    """The program could not be run, or ended badly; the message is what it said."""


async def run_command(words: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> bytes:
    """Its standard output. Raises CommandFailure."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandFailure(f"cannot run {words[0]}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, errors = await process.communicate(stdin or None)
    except (TimeoutError, asyncio.CancelledError) as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise CommandFailure(f"{words[0]} did not end within {timeout_seconds:g}s") from None
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip() or f"exit code {process.returncode}"
        raise CommandFailure(f"{' '.join(words[:4])}: {said}")
    return output
