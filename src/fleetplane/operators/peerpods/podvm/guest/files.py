"""Small things with files, without the modules that would take longer to load than they take to run."""

from __future__ import annotations

import os


def read(path: str) -> str:
    """Raises OSError."""
    with open(path, errors="replace") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Raises OSError."""
    with open(path, "w") as file:
        file.write(text)


def try_to_write(path: str, text: str) -> bool:
    """Where it does not matter whether it can be."""
    try:
        write(path, text)
    except OSError:
        return False
    return True


def table(path: str) -> dict[str, int]:
    """A file of the kernel's with a name and a number in each line. Raises OSError, ValueError."""
    return {name: int(number) for name, number in (line.split() for line in read(path).splitlines())}


def try_to_close(*descriptors: int) -> None:
    for one in set(descriptors):
        if one >= 0:
            try:
                os.close(one)
            except OSError:
                continue


def touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
