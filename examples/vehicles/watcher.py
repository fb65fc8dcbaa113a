"""A watcher for the policy Monitoring: says that it is there, judges its primaries, and asks for a restart of one that failed.

It needs nothing but Python. Where the interface is, it reads from its environment (VEHICLE_MONITOR, VEHICLE_NAMESPACE,
VEHICLE_PRIMARIES, VEHICLE_POD where all are containers of one pod); address and token of the API are where every pod has them.
A primary has failed when its log says FAULT, and is suspect while it does not run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

ACCESS = Path(os.environ.get("WATCHER_ACCESS", "/var/run/secrets/kubernetes.io/serviceaccount"))
HOST = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
PORT = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
NAMESPACE = os.environ["VEHICLE_NAMESPACE"]
MONITOR = f"/apis/crd.piccolo.org/v1alpha1/namespaces/{NAMESPACE}/vehmonitors/{os.environ['VEHICLE_MONITOR']}"
FAULT = "FAULT"


def call(method: str, path: str, body: Any = None) -> bytes:
    # Tokens are renewed now and then, so this one is read every time.
    headers = {"Authorization": f"Bearer {(ACCESS / 'token').read_text().strip()}"}
    if body is not None:
        headers["Content-Type"] = "application/merge-patch+json"
    trusted = ssl.create_default_context(cafile=str(ACCESS / "ca.crt"))
    connection = http.client.HTTPSConnection(HOST, int(PORT), timeout=5, context=trusted)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise OSError(f"{method} {path} was answered with {answer.status}: {text[:200].decode(errors='replace')}")
    return text


def log_of(primary: str) -> str:
    pod = os.environ.get("VEHICLE_POD")
    query = f"?container={primary}&tailLines=100" if pod else "?tailLines=100"
    try:
        return call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod or primary}/log{query}").decode()
    except (OSError, http.client.HTTPException):
        return ""  # it is just starting, or gone


def verdict(primary: dict[str, Any]) -> dict[str, str]:
    name = primary["name"]
    if FAULT in log_of(name):
        return {"primary": name, "verdict": "failed", "message": f"its log says {FAULT}"}
    if primary.get("state") != "Running":
        return {"primary": name, "verdict": "suspect", "message": primary.get("state") or "it is not there"}
    return {"primary": name, "verdict": "ok", "message": ""}


def look() -> None:
    """One beat: what the platform says, what we make of it, and what we ask for."""
    monitor = json.loads(call("GET", MONITOR))
    status, asked = monitor.get("status") or {}, (monitor.get("spec") or {}).get("request") or {}
    verdicts = [verdict(one) for one in status.get("primaries") or ()]
    said: dict[str, Any] = {"heartbeat": str(time.time_ns()), "verdicts": verdicts}
    outcome = status.get("outcome") or {}
    waits = asked and (outcome.get("id") != asked["id"] or outcome.get("state") == "Accepted")
    failed = [one for one in verdicts if one["verdict"] == "failed"]
    if failed and not waits and "restart" in (status.get("allowedActions") or ()):
        worst = failed[0]
        # A merge patch keeps what it does not name, so a request names everything.
        said["request"] = {
            "id": str(time.time_ns()),
            "action": "restart",
            "primary": worst["primary"],
            "reason": worst["message"],
        }
    call("PATCH", MONITOR, {"spec": said})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between heartbeats")
    parser.add_argument("--beats", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()
    beats = 0
    while not options.beats or beats < options.beats:
        beats += 1
        try:
            look()
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"no beat: {error}\n")
        time.sleep(options.every)


if __name__ == "__main__":
    main()
