#!/bin/sh
# Installs the Debian packages that real containers and their tests need, where we are root; else says what is skipped.
set -u
packages="podman runc busybox-static"
missing=""
for one in $packages; do
  dpkg -s "$one" >/dev/null 2>&1 || missing="$missing $one"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing$missing"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "not installed:$missing. Pods run simulated and the tests with real containers are skipped; as root, install them with: apt-get install$missing"
