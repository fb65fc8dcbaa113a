"""``pods/exec`` for programs: a command, its input and its whole outcome in one request and one answer.

Controllers run commands; they want no channels but an exit code, also from inside this process, where no connection can be
upgraded. Asked for by ``Accept: application/vnd.fleetplane.exec+json, application/json`` (errors are told in the second); the
body is the command's input. Output beyond the limit is cut, and a command that takes longer than ``timeoutSeconds`` (five
minutes unless said) is closed and answered 504.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Final

import orjson

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.streaming.protocol import PodStreams
from fleetplane.model import errors
from fleetplane.model.objects import Object

RESULT_TYPE: Final = "application/vnd.fleetplane.exec+json"
LIMIT: Final = 1 << 20
DEFAULT_SECONDS: Final = 300
MAX_SECONDS: Final = 3600


async def run_to_end(streams: PodStreams, pod: Object, container: str, command: Sequence[str], call: Call) -> Response:
    """Answers ``{"exitCode": n, "stdout": base64, "stderr": base64}``. Raises ApiError."""
    if call.target.verb != "create":
        raise errors.method_not_allowed("a command whose outcome is wanted is sent with POST")
    seconds = _seconds(call.request.query.get("timeoutSeconds") or "")
    given = call.request.body
    try:
        async with asyncio.timeout(seconds):
            session = await streams.exec(pod, container, command, stdin=bool(given), tty=False)
            try:
                if given:
                    await session.write(given)
                    await session.end_input()
                output = {"stdout": bytearray(), "stderr": bytearray()}
                async for channel, data in session.read():
                    room = LIMIT - len(output[channel])
                    output[channel] += data[: max(0, room)]
                code = await session.exit_code()
            finally:
                await session.close()
    except TimeoutError:
        message = f"the command did not end within {seconds} seconds"
        raise errors.ApiError(504, message, reason="Timeout") from None
    shown = {name: base64.b64encode(data).decode() for name, data in output.items()}
    return Response(200, orjson.dumps({"exitCode": code, **shown}), content_type=RESULT_TYPE)


def _seconds(text: str) -> int:
    if not text:
        return DEFAULT_SECONDS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MAX_SECONDS:
        raise errors.bad_request(f"timeoutSeconds must be a number from 1 to {MAX_SECONDS}")
    return int(text)
