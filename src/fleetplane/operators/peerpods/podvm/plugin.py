"""Peer pods on a node of ours: the node's plug-in for the handler ``kata-remote``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from fleetplane.node.plugins import Beside
from fleetplane.node.runtime import ContainerRuntime, RuntimeFailure
from fleetplane.operators.peerpods.podvm.runtime import ImageSource, PodVmRuntime
from fleetplane.operators.peerpods.providers.protocol import ProviderError
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost

VMS: Final = "vms"
"""The folder of a node's VMs, in its volatile one. Not that of the operator's: those have records, these have pods."""


class PodVms:
    """A ``NodePlugin``."""

    def open(self, beside: Beside) -> ContainerRuntime | None:
        """Images are handed in from the node's store, so that has to be one that gives them out: Podman's."""
        images: Any = beside.runtime
        if not hasattr(images, "export_image"):
            return None
        return PodVmRuntime(
            Qemu(QemuHost(folder=beside.volatile / VMS)),
            cast("ImageSource", images),
            beside.network,
            beside.environment,
            instance=beside.instance,
            folder=beside.directory / VMS,
            own=(beside.directory / "volumes", beside.volatile),
        )

    async def remove(self, volatile: Path) -> None:
        provider = Qemu(QemuHost(folder=volatile / VMS))
        try:
            for one in await provider.list({}):
                await provider.delete(one.id)
        except ProviderError as error:
            raise RuntimeFailure(error.message) from None


POD_VMS: Final = PodVms()
