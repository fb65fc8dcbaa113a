"""What the watchdog holds, and what of it is due: values only, so that a simulation may use them too."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

TURN_SECONDS: Final = 0.5
"""The longest sleep: timers of ``poll`` stand still while the machine is suspended."""


class Process:
    """A container's first process: ``began`` is its start time in clock ticks; pid 0 stands for one not yet known."""

    __slots__ = ("began", "id", "pid")

    def __init__(self, container: str, pid: int, began: int) -> None:
        self.id, self.pid, self.began = container, pid, began

    @property
    def key(self) -> tuple[str, int, int]:
        return self.id, self.pid, self.began


class Pod:
    """``until`` is when it must be dead, in seconds; None while it is frozen. ``loss``: dead when the agent is lost."""

    __slots__ = ("key", "loss", "processes", "seconds", "uid", "until")

    def __init__(self, told: dict[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError for what is no pod."""
        self.uid, self.key = str(told["uid"]), str(told["key"])
        self.seconds = float(told["seconds"])
        self.until = None if told["until"] is None else float(told["until"])
        self.loss = bool(told["loss"])
        self.processes = [Process(str(one["id"]), int(one["pid"]), int(one["began"])) for one in told["processes"]]
        if not 0 < len(self.uid) < 200 or self.uid[0] == "." or not self.uid.isprintable() or "/" in self.uid:
            raise ValueError("a uid is to be a file's name too")
        if not all(one.id.isalnum() for one in self.processes):
            raise ValueError("a container's id has letters and digits")
        if self.until is not None and not self.until < float("inf"):
            raise ValueError("a moment is a finite number")

    def is_due(self, now: float, *, connected: bool) -> bool:
        return (self.until is not None and now >= self.until) or (self.loss and not connected)


class Watch:
    """What one agent handed over last; each message says all of it. ``stay``: there may be more to hold soon."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.stay = False

    def told(self, message: dict[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError; then nothing has changed."""
        pods = [Pod(one) for one in message["pods"]]
        self.pods, self.stay = {one.uid: one for one in pods}, bool(message["stay"])

    def due(self, now: float, *, connected: bool) -> list[Pod]:
        return [one for one in self.pods.values() if one.is_due(now, connected=connected)]

    def is_over(self, alive: set[str], *, connected: bool) -> bool:
        """Whether there is nothing to wait for; ``alive`` are uids of pods that have processes, or may get some."""
        if connected and (self.stay or alive):
            return False
        return not any(one.uid in alive and (one.until is not None or one.loss) for one in self.pods.values())

    def seconds_left(self, now: float) -> float:
        """Until the next moment."""
        moments = [one.until - now for one in self.pods.values() if one.until is not None and one.until > now]
        return min(moments, default=TURN_SECONDS)
