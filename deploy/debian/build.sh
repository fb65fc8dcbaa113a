#!/bin/sh
# Build a Debian package for this machine: Fleetplane with what it depends on below /usr/lib/fleetplane, the command, the
# systemd units. Needs dpkg-deb, pip and the machine's own python3. Gives dist/fleetplane_<version>_<architecture>.deb.
#
#   deploy/debian/build.sh [WHEEL]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
fail() { echo "build.sh: $1" >&2; exit 1; }
wheel=${1:-$(ls "$root"/dist/fleetplane-*.whl 2>/dev/null | tail -1)}
[ -f "$wheel" ] || fail "there is no wheel in dist/; make one with: make package"
command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing: Debian packages are built on Debian"
python=/usr/bin/python3
minor=$($python -c 'import sys; print(sys.version_info[1])')
[ "$minor" -ge 11 ] || fail "this machine's python3 is 3.$minor; Fleetplane needs 3.11"
version=$(basename "$wheel" | cut -d- -f2)
arch=$(dpkg --print-architecture)
work=$root/build/debian
rm -rf "$work" && mkdir -p "$work/DEBIAN" "$work/usr/bin" "$work/usr/share/doc/fleetplane" "$work/lib/systemd/system" "$work/etc/fleetplane"

pip=$root/.venv/bin/python
[ -x "$pip" ] || pip=$python
"$pip" -m pip install --quiet --target "$work/usr/lib/fleetplane" --implementation cp --python-version "3.$minor" --only-binary=:all: \
  "$wheel"
rm -rf "$work/usr/lib/fleetplane/bin"
find "$work" -name __pycache__ -prune -exec rm -rf {} +
$python -m compileall -q --invalidation-mode unchecked-hash -s "$work" -p / "$work/usr/lib/fleetplane"
cat >"$work/usr/bin/fleetplane" <<'SCRIPT'
#!/usr/bin/python3
import sys

sys.path.insert(0, "/usr/lib/fleetplane")
from fleetplane.interfaces.cli.main import main  # noqa: E402

main()
SCRIPT
chmod 0755 "$work/usr/bin/fleetplane"
cp "$root"/deploy/fleetplane-*.service "$work/lib/systemd/system/"
cp "$root/LICENSE" "$work/usr/share/doc/fleetplane/copyright"
cp "$root/README.md" "$work/usr/share/doc/fleetplane/"
printf '# Settings of the control plane, such as FLEETPLANE_PORT=6443; see fleetplane up --help.\n' >"$work/etc/fleetplane/server.env"
printf '# Settings of the node; see fleetplane node --help.\n' >"$work/etc/fleetplane/node.env"
printf '/etc/fleetplane/server.env\n/etc/fleetplane/node.env\n' >"$work/DEBIAN/conffiles"
cat >"$work/DEBIAN/control" <<CONTROL
Package: fleetplane
Version: $version
Architecture: $arch
Maintainer: Fleetplane maintainers <maintainers@fleetplane.invalid>
Section: admin
Priority: optional
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), libstdc++6
Recommends: podman, runc | crun
Installed-Size: $(du -sk "$work/usr" | cut -f1)
Description: control plane that speaks the Kubernetes API
 One control plane for workloads that do not live in one big cluster:
 vehicles, edge clusters, peer-pod VMs and virtual clusters.
CONTROL
cp "$here/postinst" "$here/prerm" "$here/postrm" "$work/DEBIAN/"
chmod 0755 "$work/DEBIAN/postinst" "$work/DEBIAN/prerm" "$work/DEBIAN/postrm"
chmod -R go-w "$work"
mkdir -p "$root/dist"
dpkg-deb --root-owner-group -Zgzip -z6 --build "$work" "$root/dist/fleetplane_${version}_${arch}.deb" >/dev/null
echo "built dist/fleetplane_${version}_${arch}.deb"
