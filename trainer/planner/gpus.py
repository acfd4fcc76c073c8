"""GPUs by name: what they hold and how fast they compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """What a GPU does in practice: products in FLOP/s, element-wise work and copies from pinned
    host memory in bytes/s.

    Measured on the H200 only; a cautious part of the data sheet for the others.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]
    flops: float
    bytes_per_s: float
    bus_bytes_per_s: float
    measured: bool = False


GPUS = {
    "t4": Speed("Tesla T4", 14.7, (7, 5), 22e12, 0.25e12, 11e9),
    "l4": Speed("NVIDIA L4", 22.0, (8, 9), 55e12, 0.24e12, 22e9),
    "a10g": Speed("NVIDIA A10G", 22.0, (8, 6), 60e12, 0.48e12, 22e9),
    "a100": Speed("NVIDIA A100", 39.4, (8, 0), 230e12, 1.3e12, 22e9),
    "h100": Speed("NVIDIA H100", 79.1, (9, 0), 600e12, 2.2e12, 45e9),
    "h200": Speed("NVIDIA H200", 139.7, (9, 0), 640e12, 2.6e12, 45e9, measured=True),
}


UNKNOWN = Speed("another GPU", 0, (0, 0), 50e12, 0.5e12, 11e9)


def speed_of(device_name: str) -> Speed:
    """The entry of `GPUS` whose model is in `device_name`, else a guess."""
    return next((s for s in GPUS.values() if s.name.split()[-1] in device_name), UNKNOWN)
