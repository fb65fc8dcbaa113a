"""``fleetplane ip-manager``: where it listens is said on purpose, and it says when it is ready."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request

from tests.interfaces.cli.conftest import Cli, Served


def test_everybodys_network_is_trusted_on_purpose_only(cli: Cli) -> None:
    for listen, why in (
        ("0.0.0.0:5002", "say --trust-network"),
        ("nonsense", "is not address:port"),
        (":1", "address:port"),
    ):
        result = cli("ip-manager", "--pool", "vnodes", "--listen", listen)
        assert result.code == 2, listen
        assert why in result.err


def test_it_answers_and_says_what_is_missing(plane: Served) -> None:
    command = [sys.executable, "-m", "fleetplane.interfaces.cli", "ip-manager", "--pool", "vnodes"]
    command += ["--listen", "127.0.0.1:0", "--kubeconfig", str(plane.kubeconfig)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready, url = process.stdout.readline().split()
        try:
            urllib.request.urlopen(f"{url}/free-ip", timeout=30)
            raise AssertionError("there is no pool, and yet an address")
        except urllib.error.HTTPError as error:
            told = json.loads(error.read())
    finally:
        process.terminate()
        process.wait(30)
    assert ready == "ready"
    assert (told["code"], "create it first" in told["description"]) == (503, True)
