#!/bin/sh
# snapshot.sh FILE: writes the state of the control plane, its keys included, while it goes on. For root alone.
set -eu
umask 077
. /vk8s/common
work=$(mktemp -d "$1.XXXXXX")
trap 'rm -rf "$work" "$1.part"' EXIT
python3 - "$SERVER_DIR/fleetplane.db" "$work/fleetplane.db" <<'END'
import sqlite3
import sys

connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=60)
connection.execute("VACUUM INTO ?", (sys.argv[2],))
END
cp -R "$SERVER_DIR/pki" "$work/pki"
rm -f "$work/pki/serving.pem" # made anew, for the address it then has
tar -czf "$1.part" -C "$work" fleetplane.db pki
mv "$1.part" "$1"
