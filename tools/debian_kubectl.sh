#!/bin/sh
# Unpacks Debian's kubectl (1.20, which speaks SPDY only) into $1 for the end-to-end tests, without installing it: its package
# and the newer ones of others want the same file. Says so where it cannot be had; the tests then use what is on the path.
set -u
target=$1
mkdir -p "$target"
cd "$target" || exit 0
if command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then
  [ "$(id -u)" != 0 ] || apt-cache show kubernetes-client >/dev/null 2>&1 || apt-get update -qq >/dev/null 2>&1
  if apt-get download -qq kubernetes-client >/dev/null 2>&1 && dpkg-deb -x kubernetes-client_*.deb . 2>/dev/null; then
    rm -f kubernetes-client_*.deb
    touch usr/bin/kubectl
    exit 0
  fi
fi
echo "Debian's kubectl cannot be had here; the end-to-end tests use the kubectl on the path, if there is one"
