"""How the bytes of one version travel, as publisher and receivers agree on it for every push."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = -1  # as base: no version is patched


@dataclass(frozen=True, slots=True)
class DeviceHandle:
    """Memory of one GPU for other processes of the same user on the machine (common/device.py). Bytes are in
    hexadecimal. Good for as long as the process that made it keeps the memory."""

    memory: str  # of the allocation
    size: int  # bytes of the storage in it
    offset: int  # of the storage in it
    counter: str  # torch's count of readers
    counter_offset: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """`handle`: nothing is sent, the buffer is where it says. Else `transport` broadcasts the buffer, or, unless `base`
    is WHOLE, `entries` of a delta (common/delta.py) to the one that the group received as version `base`."""

    transport: str = "gloo"
    base: int = WHOLE
    entries: int = 0
    handle: DeviceHandle | None = None


BY_HOST_MEMORY = Shipment()
