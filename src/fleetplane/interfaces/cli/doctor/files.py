"""What a plane keeps in its folder: certificates, database, and that only its owner can read them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from fleetplane.model.environment import Environment
from fleetplane.node.check import Finding
from fleetplane.store.migrations import MIGRATIONS

SOON: Final = timedelta(days=14)
CHECK_SECONDS: Final = 30.0
_PRIVATE: Final = ("pki", "fleetplane.db", "admin.kubeconfig", "pki/admin.pem", "pki/ca.pem", "pki/encryption.key")


def check_files(data_dir: Path, environment: Environment) -> Iterator[Finding]:
    """Nothing where there is no plane yet."""
    if not (data_dir / "pki").is_dir() and not (data_dir / "fleetplane.db").is_file():
        yield Finding("Plane", "works", f"There is none in {data_dir} yet; 'fleetplane up' makes one.")
        return
    yield check_certificates(data_dir / "pki", environment)
    if (data_dir / "fleetplane.db").is_file():
        yield check_database(data_dir / "fleetplane.db")
    yield check_privacy(data_dir)


def check_certificates(directory: Path, environment: Environment) -> Finding:
    """When the first of them ends, which one, and whether it can be read at all."""
    now, ends = environment.now(), []
    try:
        found = sorted(directory.glob("*.pem"))
        for path in found:
            text = path.read_bytes()
            if b"BEGIN CERTIFICATE" in text:
                ends.append((x509.load_pem_x509_certificates(text)[0].not_valid_after_utc, path.name))
    except (OSError, ValueError) as error:
        words = f"{path} cannot be read: {error}."
        return Finding(
            "Certificates", "missing", words, "Restore it from a backup, or move it away to have it made anew."
        )
    if not ends:
        return Finding("Certificates", "limited", f"There are none in {directory}.", "'fleetplane up' makes them.")
    when, name = min(ends)
    if when <= now:
        words = f"{name} ended on {when:%Y-%m-%d}."
        return Finding("Certificates", "missing", words, "Start the plane again: it renews its certificates.")
    if when <= now + SOON:
        words = f"{name} ends on {when:%Y-%m-%d}."
        return Finding("Certificates", "limited", words, "A running plane renews it; so does the next start.")
    return Finding("Certificates", "works", f"{len(ends)} of them, the first ({name}) ends on {when:%Y-%m-%d}.")


def check_database(path: Path) -> Finding:
    """Its schema and SQLite's own check, read-only, for half a minute at most."""
    deadline = time.monotonic() + CHECK_SECONDS
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    except sqlite3.Error as error:
        return Finding("Database", "missing", f"{path} cannot be opened: {error}.", "Check who may read it.")
    try:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            words = f"{path} has schema {version}, of a newer Fleetplane; this one knows {len(MIGRATIONS)}."
            return Finding("Database", "missing", words, "Upgrade Fleetplane, or restore a backup.")
        told = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            words = f"{path} is large; nothing was found wrong in {CHECK_SECONDS:.0f} seconds of looking."
            return Finding("Database", "limited", words)
        return Finding("Database", "missing", f"{path} cannot be read: {error}.", "Check who may read it.")
    except sqlite3.Error as error:
        return Finding("Database", "missing", f"{path} is damaged: {error}.", "Stop the plane and restore a backup.")
    finally:
        connection.close()
    if told != ["ok"]:
        return Finding("Database", "missing", f"{path} is damaged: {told[0]}.", "Stop the plane and restore a backup.")
    size = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*")) / 2**20
    upgrade = f", which the next start brings to {len(MIGRATIONS)}" if version < len(MIGRATIONS) else ""
    return Finding("Database", "works", f"{path} is whole: {size:,.1f} MiB, schema {version}{upgrade}.")


def check_privacy(data_dir: Path) -> Finding:
    """Keys and Secrets that others on this machine can read are not secret."""
    open_to_others = [
        name for name in _PRIVATE if (data_dir / name).exists() and (data_dir / name).stat().st_mode & 0o077
    ]
    if open_to_others:
        words = f"Others on this machine may read {', '.join(str(data_dir / one) for one in open_to_others)}."
        return Finding("Privacy", "limited", words, f"chmod -R go= {data_dir}")
    return Finding("Privacy", "works", f"Only you can read the keys in {data_dir}.")
