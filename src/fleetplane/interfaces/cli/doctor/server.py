"""Who answers: the server of the kubeconfig that every command would use, and whether it accepts us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from fleetplane.client.http import HttpTransport
from fleetplane.client.kubeconfig import Access, ConfigError
from fleetplane.client.protocol import Unreachable
from fleetplane.client.rest import RestClient
from fleetplane.interfaces.cli.command import Connection
from fleetplane.interfaces.cli.connection import find
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.node.check import Finding

ANSWER_SECONDS: Final = 5.0


async def check_server(connection: Connection, environment: Environment) -> AsyncIterator[Finding]:
    try:
        found = find(connection)
    except ConfigError as error:
        yield Finding(
            "Kubeconfig", "missing", f"{str(error).splitlines()[0]}.", "Mend it, or name another with --kubeconfig."
        )
        return
    except CommandError as error:
        words = str(error)
        yield Finding("Server", "works", f"{words[0].upper()}{words[1:]}.")
        return
    yield Finding("Kubeconfig", "works", f"{found.origin} names {found.access.server}.")
    ended = check_credential(found.access, environment)
    if ended is not None:
        yield ended
    yield await ask(found.access, environment)


def check_credential(access: Access, environment: Environment) -> Finding | None:
    """The client certificate of the kubeconfig, when it has ended."""
    if not access.certificate:
        return None
    try:
        ends = x509.load_pem_x509_certificate(access.certificate).not_valid_after_utc
    except ValueError:
        return Finding(
            "Credentials", "missing", "The client certificate in it cannot be read.", "Get a new kubeconfig."
        )
    if ends > environment.now():
        return None
    words = f"The client certificate in it ended on {ends:%Y-%m-%d}."
    advice = "Get a new kubeconfig; 'fleetplane up' writes a fresh one for its own plane."
    return Finding("Credentials", "missing" if not access.token else "limited", words, advice)


async def ask(access: Access, environment: Environment) -> Finding:
    client = RestClient(HttpTransport(access, environment))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            version = json.loads(await client.raw("GET", "/version"))
            await client.raw("GET", "/api/v1/namespaces/default")
    except TimeoutError:
        words = f"{access.server} did not answer within {ANSWER_SECONDS:.0f} seconds."
        return Finding("Server", "missing", words, "Look at its log, and at the network in between.")
    except Unreachable as error:
        advice = "Start it ('fleetplane up'), or name another kubeconfig with --kubeconfig."
        if "certificate" in error.message.lower():
            advice = "The kubeconfig is of another server, or of an earlier one at this address: get a new one."
        return Finding("Server", "missing", f"{error.message.rstrip('.')}.", advice)
    except ApiError as error:
        if error.code == 401:
            words = f"{access.server} does not accept the credentials."
            return Finding("Server", "missing", words, "Get a new kubeconfig for it.")
        if error.code == 403:
            return Finding("Server", "limited", f"{access.server} answers, but lets us see little: {error.message}.")
        return Finding(
            "Server", "missing", f"{access.server} answered {error.code}: {error.message}.", "Look at its log."
        )
    except (ConfigError, ValueError) as error:
        return Finding("Server", "missing", f"{access.server} cannot be asked: {error}.", "Mend the kubeconfig.")
    finally:
        await client.close()
    return Finding("Server", "works", f"{access.server} answers as {version.get('gitVersion', 'an unknown version')}.")


def listens_for(access_server: str, host: str, port: int) -> bool:
    """Whether the address of a server is the one a plane here would listen on."""
    address = urlsplit(access_server)
    return (address.hostname or "") == host and (address.port or 443) == port
