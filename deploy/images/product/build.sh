#!/bin/sh
# Build the container image without a registry, without root and without running anything of the target: a root of Debian
# packages that are unpacked and not configured, and wheels. So arm64 is built on amd64 as quickly, and the other way round.
#
#   deploy/images/product/build.sh [-t IMAGE] [-a amd64|arm64] [-d SUITE] [WHEEL]
#
# Needs mmdebstrap (apt-get install mmdebstrap), pip, and podman, buildah or docker. WHEEL is by default the one in dist/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
image=localhost/fleetplane:latest
arch=$(dpkg --print-architecture 2>/dev/null || echo amd64)
suite=bookworm
while getopts t:a:d:h option; do
  case $option in
    t) image=$OPTARG ;; a) arch=$OPTARG ;; d) suite=$OPTARG ;;
    *) sed -n 2,7p "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
fail() { echo "build.sh: $1" >&2; exit 1; }

wheel=${1:-$(ls "$root"/dist/fleetplane-*.whl 2>/dev/null | tail -1)}
[ -f "$wheel" ] || fail "there is no wheel in dist/; make one with: make package"
version=$(basename "$wheel" | cut -d- -f2)
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing; install it with: apt-get install mmdebstrap"
tool=
for one in podman buildah docker; do command -v $one >/dev/null && { tool=$one; break; }; done
[ -n "$tool" ] || fail "podman, buildah or docker is needed to put the image together"
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=python3
case $arch in
  amd64) machine=x86_64 ;; arm64) machine=aarch64 ;;
  *) fail "there is no recipe for $arch; amd64 and arm64 are known" ;;
esac
case $suite in
  bookworm) minor=3.11 ;; trixie) minor=3.13 ;;
  *) fail "there is no recipe for Debian $suite; bookworm and trixie are known" ;;
esac

work=$root/build/image/$suite-$arch
mkdir -p "$work"

# The root. Only unpacked: the few things that maintainer scripts would do and that matter are done here.
if [ ! -f "$work/root.tar" ]; then
  cat >"$work/finish" <<'SCRIPT'
#!/bin/sh
set -eu
cd "$1"
mkdir -p tmp/certificates etc/ssl/certs var/lib/fleetplane
(cd tmp/certificates && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download -qq ca-certificates >/dev/null && dpkg-deb -x ./*.deb .)
cat tmp/certificates/usr/share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-certificates.crt
rm -rf tmp/certificates usr/share/doc usr/share/man usr/share/locale usr/share/lintian usr/share/debconf usr/share/python3 \
  usr/lib/python3*/test usr/lib/python3*/idlelib usr/lib/python3*/pydoc_data usr/lib/python3*/lib2to3 \
  var/lib/apt var/lib/dpkg var/cache usr/bin/dpkg* usr/sbin usr/bin/tar usr/bin/openssl
mkdir -p usr/sbin
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nfleetplane:x:65532:65532:Fleetplane:/var/lib/fleetplane:/usr/sbin/nologin\n' >etc/passwd
printf 'root:x:0:\nfleetplane:x:65532:\n' >etc/group
printf 'hosts: files dns\n' >etc/nsswitch.conf
chmod 1777 tmp
chmod 0777 var/lib/fleetplane # where no volume is mounted; one that is has rights of its own
SCRIPT
  chmod +x "$work/finish"
  mmdebstrap --quiet --mode="$([ "$(id -u)" = 0 ] && echo root || echo unshare)" --format=tar --variant=extract --architectures="$arch" \
    --include="python3-minimal,python$minor-minimal,libpython$minor-stdlib,libstdc++6,netbase,tzdata" \
    --skip=output/dev --customize-hook="$work/finish \"\$1\"" "$suite" "$work/root.tar.part"
  mv "$work/root.tar.part" "$work/root.tar"
fi

# Fleetplane and what it depends on: wheels for that machine and that Python, and nothing that would have to be built.
platforms=
for one in manylinux1 manylinux2010 manylinux2014 manylinux_2_17 manylinux_2_24 manylinux_2_26 manylinux_2_27 manylinux_2_28 \
  manylinux_2_31 manylinux_2_34 manylinux_2_35 manylinux_2_36; do
  platforms="$platforms --platform ${one}_$machine"
done
site=$work/app/usr/lib/fleetplane
rm -rf "$work/app" && mkdir -p "$site" "$work/app/usr/bin"
# shellcheck disable=SC2086 - one argument each
"$python" -m pip install --quiet --target "$site" --implementation cp --python-version "$minor" --only-binary=:all: \
  $platforms "$wheel"
rm -rf "$site/bin"
if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$minor" ]; then
  "$python" -m compileall -q --invalidation-mode unchecked-hash "$site"
fi
cat >"$work/app/usr/bin/fleetplane" <<SCRIPT
#!/usr/bin/python3
import sys
sys.path.insert(0, "/usr/lib/fleetplane")
from fleetplane.interfaces.cli.main import main
main()
SCRIPT
chmod 0755 "$work/app/usr/bin/fleetplane"
tar -C "$work/app" --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w --mtime="@${SOURCE_DATE_EPOCH:-0}" -cf "$work/app.tar" .

cp "$here/Containerfile" "$work/"
case $tool in
  docker) docker build --quiet --platform "linux/$arch" --build-arg "VERSION=$version" -t "$image" "$work" ;;
  *) $tool build --quiet --platform "linux/$arch" --build-arg "VERSION=$version" --format docker -t "$image" -f "$work/Containerfile" "$work" ;;
esac >/dev/null
echo "built $image ($arch, Debian $suite, Python $minor, fleetplane $version)"
