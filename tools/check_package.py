"""Look at the built packages as somebody who has nothing else: small, complete, and a plane runs from the wheel.

    python tools/check_package.py dist

Makes a virtual environment in a temporary folder, installs the wheel there with pip, and works in an empty folder, so
that nothing can come from the source tree. Says what is wrong and exits 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

MAX_BYTES = 15 * 1000 * 1000
IN_WHEEL = ("fleetplane/model/builtin/kinds.bin", "fleetplane/py.typed")
IN_SDIST = ("hatch_build.py", "tools/extract_builtin_kinds.py", "tests/conftest.py", "Makefile", "README.md", "LICENSE")
SECONDS = 60

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers: [{name: main, image: none}]
"""


class Wrong(Exception):
    """The message says what is wrong with the packages."""


def the_one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise Wrong(f"expected one {pattern} in {folder}, found {len(found)}; run `make package` again")
    return found[0]


def check_contents(folder: Path) -> Path:
    """Sizes and contents; gives the wheel."""
    wheel, sdist = the_one(folder, "fleetplane-*.whl"), the_one(folder, "fleetplane-*.tar.gz")
    for one in (wheel, sdist):
        if one.stat().st_size > MAX_BYTES:
            raise Wrong(f"{one.name} has {one.stat().st_size} bytes; at most {MAX_BYTES} are wanted")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = [one for one in IN_WHEEL if one not in names]
    with tarfile.open(sdist) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    missing += [one for one in IN_SDIST if one not in inside]
    if missing:
        raise Wrong(f"the packages lack {', '.join(missing)}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
    return wheel


class Installed:
    """The wheel in an environment of its own; commands run in an empty folder."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        venv.create(folder / "venv", with_pip=True)
        self._bin = folder / "venv" / "bin"
        hidden = ("PYTHONPATH", "KUBECONFIG", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        self._environment = kept | {"HOME": str(self.home)}
        pip = [str(self._bin / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
        if subprocess.run(pip, cwd=self.home, check=False).returncode:  # with the user's own settings of pip
            raise Wrong("pip cannot install the wheel")

    def run(self, *arguments: str, text: str | None = None) -> str:
        command = [str(self._bin / "fleetplane"), *arguments]
        done = subprocess.run(
            command, cwd=self.home, env=self._environment, input=text, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Wrong(f"fleetplane {' '.join(arguments)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [str(self._bin / "fleetplane"), *arguments]
        return subprocess.Popen(command, cwd=self.home, env=self._environment, stdout=subprocess.PIPE, text=True)


def check_runs(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetplane-package-") as name:
        installed = Installed(wheel, Path(name))
        kinds = installed.run("manifests").count("kind: CustomResourceDefinition")
        if not kinds:
            raise Wrong("the installed operators define no kinds")
        plane = installed.start("up", "--runtime", "simulated", "--nodes", "2", "--port", "0")
        try:
            assert plane.stdout is not None
            ready = plane.stdout.readline()
            if not ready.startswith("ready https://"):
                raise Wrong("the plane did not come up; what it said is above")
            installed.run("apply", "-f", "-", text=DEPLOYMENT)
            installed.run("wait", "deployment/hello", "--for=condition=Available", "--timeout=30s")
            served = installed.run("api-resources").count("crd.piccolo.org")
            if not served:
                raise Wrong("the plane does not serve the kinds of its operators")
        finally:
            plane.send_signal(signal.SIGTERM)
            code = plane.wait(SECONDS)
        if code:
            raise Wrong(f"the plane ended with exit code {code}")
        print(f"installed without the repository: {kinds} kinds, a Deployment became available, a clean end")


def main(arguments: list[str]) -> int:
    try:
        check_runs(check_contents(Path(arguments[0] if arguments else "dist").resolve()))
    except (Wrong, OSError, subprocess.TimeoutExpired) as error:
        print(f"check_package: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
