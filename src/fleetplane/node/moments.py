"""Times as container runtimes write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

_FRACTION = re.compile(r"\.(\d{1,9})\d*")
EPOCH: Final = datetime.fromtimestamp(0, UTC)


def moment(text: Any) -> datetime | None:
    """RFC 3339 with nanoseconds, or seconds since the epoch; Go's zero time is None."""
    if isinstance(text, int | float):
        return datetime.fromtimestamp(text, UTC) if text > 0 else None
    if not isinstance(text, str) or not text or text.startswith("0001-"):
        return None
    shortened = _FRACTION.sub(lambda found: "." + found[1].ljust(6, "0")[:6], text)
    try:
        return datetime.fromisoformat(shortened.replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None
