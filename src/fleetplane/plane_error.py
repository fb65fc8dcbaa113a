"""What keeps a plane from starting or going on."""

from __future__ import annotations


class PlaneError(Exception):
    """The plane cannot run; the message says what to do."""
