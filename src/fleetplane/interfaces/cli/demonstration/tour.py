"""All steps in order, on one plane, from an empty folder to nothing left (or, with ``keep``, to a plane that goes on)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from fleetplane.client.kubeconfig import ConfigError
from fleetplane.interfaces.cli.demonstration import crash, peerpods, vclusters, vehicles
from fleetplane.interfaces.cli.demonstration.containers import Containers, why_not_real
from fleetplane.interfaces.cli.demonstration.place import KEPT, Place
from fleetplane.interfaces.cli.demonstration.screen import Screen
from fleetplane.interfaces.cli.demonstration.stage import Stage
from fleetplane.interfaces.cli.demonstration.steps import Done, Outcome, Say, Step, StepFailed
from fleetplane.interfaces.cli.demonstration.summary import Summary
from fleetplane.interfaces.cli.errors import CommandError, ExitWith
from fleetplane.interfaces.cli.logs import configure_logging
from fleetplane.model.errors import ApiError
from fleetplane.node.processes import CommandFailure
from fleetplane.node.runtime import RuntimeFailure

STEP_SECONDS: Final = 60.0


async def _ready(stage: Stage, say: Say) -> Outcome:
    took = await stage.start_plane()
    return Outcome(took, "ready, from an empty folder", "process, TLS, SQLite")


def _anew(file: str, options: str = "", wait: str = " --wait") -> str:
    """The command that takes away what a file says and makes it once more."""
    return f"fleetplane{options} delete -f {file} && fleetplane{options} apply -f {file}{wait}"


_CHOSEN = f" --cluster {vclusters.CHOSEN}"
STEPS: Final = (
    Step("ready", "A plane starts", "fleetplane up --port 0 --data-dir another", _ready),
    Step(
        "refused",
        "The camera as a privileged container",
        "fleetplane apply -f camera-refused.yaml",
        vehicles.refused,
    ),
    Step("camera", "The camera, mended", _anew("camera.yaml"), vehicles.runs),
    Step(
        "switchover",
        "The active brake monitor dies",
        "fleetplane delete pod -n system-application {tookOver} --grace-period=1",
        vehicles.switched,
    ),
    Step("crash", "The plane is killed and comes back", "kill -9 {pid}; fleetplane up {up}", crash.survived),
    Step("vclusters", "A hundred virtual clusters", _anew("vclusters.yaml"), vclusters.created),
    Step("deployed", "A Deployment in one of them", _anew("hello.yaml", _CHOSEN), vclusters.deployed),
    Step("peerpods", "A limit of ten peer pods", _anew("peerpods.yaml", wait=""), peerpods.spread),
)


def run_demo(runtime: str, keep: bool, data_dir: Path | None, output: str, steps: Sequence[Step] = STEPS) -> None:
    """Run the tour. Raises CommandError with the sentence that says which step failed."""
    configure_logging("error")
    missing = None if runtime == "simulated" else why_not_real()
    if missing is not None and runtime == "podman":
        raise CommandError(f"the demo cannot run real containers: {missing}")
    why = f"containers are simulated: {missing or 'as asked with --runtime'}"
    place = Place(data_dir or (KEPT if keep else Path(tempfile.mkdtemp(prefix="fleetplane-demo-"))))
    simulated = runtime == "simulated" or missing is not None
    stage = Stage(place, None if simulated else Containers(place.plane), why if simulated else "")
    screen = Screen(steps, as_json=output == "json")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(stage, keep, screen, steps))
    except asyncio.CancelledError:
        raise ExitWith(128 + signal.SIGTERM) from None


def stop_demo(data_dir: Path | None) -> None:
    """Remove a demo that was kept, with everything it started. Raises CommandError when there is none."""
    place = Place(data_dir or KEPT)
    if not place.plane.exists():
        raise CommandError(f"there is no demo in {place.root}; name its folder with --data-dir")
    try:
        asyncio.run(place.remove())
    except RuntimeFailure as error:
        raise CommandError(f"not everything could be removed: {error.message}") from None


async def _run(stage: Stage, keep: bool, screen: Screen, steps: Sequence[Step]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    place = stage.place
    place.prepare(vehicles.camera_device(), vclusters.NAMES)
    started = time.perf_counter()
    done: list[Done] = []
    failure = ""
    try:
        with screen:
            for step in steps:
                done.append(Done(step, await _one(stage, step, screen)))
    except StepFailed as error:
        failure = str(error)
    except BaseException:
        await _end(stage)
        raise
    seconds = time.perf_counter() - started
    if keep and (stage.plane is not None and not failure):
        await stage.close_client()
    else:
        failure += _log_kept(place) if failure else ""
        await _end(stage)
    screen.finish(
        Summary(tuple(done), failure, seconds, place, keep, stage.plane.pid if stage.plane else 0, stage.port)
    )
    if failure:
        raise CommandError(f"the demo failed: {failure}")


def _log_kept(place: Place) -> str:
    """Where the plane's log is after its folder has gone; nothing where it wrote none."""
    if not place.log.is_file() or not place.log.stat().st_size:
        return ""
    with tempfile.NamedTemporaryFile("wb", prefix="fleetplane-demo-", suffix=".log", delete=False) as kept:
        kept.write(place.log.read_bytes())
    return f"; the plane's log is {kept.name}"


async def _end(stage: Stage) -> None:
    await stage.stop()
    with contextlib.suppress(RuntimeFailure):
        await stage.place.remove()


async def _one(stage: Stage, step: Step, screen: Screen) -> Outcome:
    """One step, shown while it runs. Raises StepFailed."""
    screen.begin(step)
    try:
        async with asyncio.timeout(STEP_SECONDS):
            outcome = await step.run(stage, screen.say)
    except TimeoutError:
        said = f" ({screen.told})" if screen.told else ""
        message = f"not done after {STEP_SECONDS:.0f} seconds{said}"
        raise StepFailed(f"{step.title}: {message}") from None
    except (StepFailed, ApiError, CommandFailure, ConfigError) as error:
        message = error.message if isinstance(error, ApiError) else str(error)
        raise StepFailed(f"{step.title}: {message}") from None
    except BaseExceptionGroup as group:
        first = _first(group)
        raise StepFailed(f"{step.title}: {first}") from None
    screen.end(Done(step, outcome))
    return outcome


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
