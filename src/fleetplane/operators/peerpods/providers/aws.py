"""VMs of Amazon EC2, through its own SDK (``boto3``, which whoever wants it installs).

The token is EC2's client token, and stands on the VM as a tag too: EC2 forgets client tokens in time, tags it keeps.
The SDK blocks, so every call runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from fleetplane.operators.peerpods.providers.protocol import (
    RECORD_TAG,
    Failure,
    Instance,
    InstanceType,
    Provider,
    ProviderError,
    Size,
    State,
    Surroundings,
    VmSpec,
    best_fit,
)

DEFAULT_TYPE: Final = "m6a.large"
_STATES: Final[Mapping[str, State]] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "shutting-down": "deleting",
    "terminated": "deleted",
}
_FAILURES: Final[Mapping[str, Failure]] = {
    **dict.fromkeys(
        ("AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
        Failure.CREDENTIALS,
    ),
    **dict.fromkeys(
        ("InstanceLimitExceeded", "VcpuLimitExceeded", "InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"),
        Failure.QUOTA,
    ),
    **dict.fromkeys(("RequestLimitExceeded", "Throttling", "ThrottlingException"), Failure.THROTTLED),
    **dict.fromkeys(("InternalError", "ServiceUnavailable", "Unavailable", "InternalFailure"), Failure.UNAVAILABLE),
}
_GONE: Final = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})


def aws(settings: Mapping[str, str], _surroundings: Surroundings) -> Provider:
    """Settings as the adaptor's: AWS_REGION, PODVM_AMI_ID, PODVM_INSTANCE_TYPE(S), AWS_SUBNET_ID, AWS_SG_IDS, keys."""
    try:
        boto3: Any = import_module("boto3")
        config: Any = import_module("botocore.config")
    except ImportError:
        raise ProviderError(Failure.UNSUPPORTED, "the provider aws needs boto3: pip install fleetplane[aws]") from None
    if not settings.get("AWS_REGION"):
        raise ProviderError(Failure.REFUSED, "aws needs AWS_REGION")
    client = boto3.client(
        "ec2",
        region_name=settings["AWS_REGION"],
        aws_access_key_id=settings.get("AWS_ACCESS_KEY_ID") or None,
        aws_secret_access_key=settings.get("AWS_SECRET_ACCESS_KEY") or None,
        aws_session_token=settings.get("AWS_SESSION_TOKEN") or None,
        # Trying again is the operator's business, which tells people; the SDK would do it in silence.
        config=config.Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 1}),
    )
    return Ec2(client, settings)


class Ec2:
    """A Provider over an EC2 client."""

    def __init__(self, client: Any, settings: Mapping[str, str]) -> None:
        self._client = client
        self._settings = settings
        self._types: list[InstanceType] | None = None

    async def create(self, spec: VmSpec) -> Instance:
        found = await self.describe(token=spec.token)
        if found is not None:
            return found
        wanted = await self._run_arguments(spec)
        made = await self._call(lambda: self._client.run_instances(**wanted))
        return _instance(made["Instances"][0])

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        if not id:
            found = await self.list({RECORD_TAG: token})
            return found[0] if found else None
        try:
            answer = await self._call(lambda: self._client.describe_instances(InstanceIds=[id]))
        except _Gone:
            return None
        found = [_instance(one) for group in answer["Reservations"] for one in group["Instances"]]
        return next((one for one in found if not one.is_gone), None)

    async def delete(self, id: str) -> None:
        try:
            await self._call(lambda: self._client.terminate_instances(InstanceIds=[id]))
        except _Gone:
            return

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
        filters.append({"Name": "instance-state-name", "Values": [k for k, v in _STATES.items() if v != "deleted"]})

        def pages() -> list[Any]:
            paginator = self._client.get_paginator("describe_instances")
            return [one for page in paginator.paginate(Filters=filters) for one in page["Reservations"]]

        groups = await self._call(pages)
        return sorted((_instance(one) for group in groups for one in group["Instances"]), key=lambda one: one.id)

    async def resize(self, id: str, size: Size) -> Instance:
        raise ProviderError(Failure.UNSUPPORTED, "EC2 changes the type of a stopped instance only; make a new peer pod")

    async def _run_arguments(self, spec: VmSpec) -> dict[str, Any]:
        settings = self._settings
        tags = {"Name": spec.name, **spec.tags, RECORD_TAG: spec.token}
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        wanted: dict[str, Any] = {
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": spec.token,
            "ImageId": spec.image or settings.get("PODVM_AMI_ID", ""),
            "InstanceType": await self._type(spec.size),
            "UserData": spec.user_data,
            "TagSpecifications": [{"ResourceType": kind, "Tags": listed} for kind in ("instance", "volume")],
            "MetadataOptions": {"HttpTokens": "required"},
        }
        if subnet := settings.get("AWS_SUBNET_ID"):
            wanted["SubnetId"] = subnet
        if groups := [one.strip() for one in settings.get("AWS_SG_IDS", "").split(",") if one.strip()]:
            wanted["SecurityGroupIds"] = groups
        if key := settings.get("SSH_KP_NAME"):
            wanted["KeyName"] = key
        return wanted

    async def _type(self, size: Size) -> str:
        default = self._settings.get("PODVM_INSTANCE_TYPE") or DEFAULT_TYPE
        listed = [one.strip() for one in self._settings.get("PODVM_INSTANCE_TYPES", "").split(",") if one.strip()]
        if size.instance_type:
            if size.instance_type not in {default, *listed}:
                raise ProviderError(
                    Failure.REFUSED, f"{size.instance_type} is not in PODVM_INSTANCE_TYPES; add it there"
                )
            return size.instance_type
        if not listed or not (size.vcpus or size.memory_mib or size.gpus):
            return default
        if self._types is None:
            answer = await self._call(lambda: self._client.describe_instance_types(InstanceTypes=listed))
            self._types = [_type(one) for one in answer["InstanceTypes"]]
        chosen = best_fit(self._types, size)
        if chosen is None:
            shown = f"{size.vcpus} CPUs, {size.memory_mib} MiB and {size.gpus} GPUs"
            raise ProviderError(Failure.REFUSED, f"no type of PODVM_INSTANCE_TYPES has {shown}")
        return chosen.name

    async def _call(self, call: Callable[[], Any]) -> Any:
        wrong: Any = import_module("botocore.exceptions")
        try:
            return await asyncio.to_thread(call)
        except wrong.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _GONE:
                raise _Gone from None
            text = str(error.response.get("Error", {}).get("Message", ""))
            raise ProviderError(_FAILURES.get(code, Failure.REFUSED), f"EC2 says {code}: {text[:200]}") from None
        except wrong.NoCredentialsError:
            raise ProviderError(Failure.CREDENTIALS, "there are no AWS credentials in the Secret") from None
        except (wrong.ConnectTimeoutError, wrong.ReadTimeoutError):
            raise ProviderError(Failure.TIMED_OUT, "EC2 did not answer in time") from None
        except wrong.BotoCoreError as error:
            raise ProviderError(Failure.UNAVAILABLE, f"EC2 cannot be reached ({type(error).__name__})") from None


class _Gone(Exception):
    """EC2 knows no such instance."""


def _instance(found: Mapping[str, Any]) -> Instance:
    tags = {one["Key"]: one["Value"] for one in found.get("Tags") or ()}
    addresses = [found.get("PrivateIpAddress"), *(one.get("Ipv6Address") for one in _ipv6(found))]
    return Instance(
        id=found["InstanceId"],
        state=_STATES.get(found["State"]["Name"], "pending"),
        token=tags.get(RECORD_TAG, ""),
        tags=tags,
        addresses=tuple(one for one in addresses if one),
        size=Size(instance_type=found.get("InstanceType", "")),
    )


def _ipv6(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for card in found.get("NetworkInterfaces") or () for one in card.get("Ipv6Addresses") or ()]


def _type(found: Mapping[str, Any]) -> InstanceType:
    gpus = sum(one.get("Count", 0) for one in (found.get("GpuInfo") or {}).get("Gpus") or ())
    return InstanceType(
        found["InstanceType"], found["VCpuInfo"]["DefaultVCpus"], found["MemoryInfo"]["SizeInMiB"], gpus
    )
