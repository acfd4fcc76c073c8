"""GPUs by name: what they hold and how fast they compute."""

from dataclasses import dataclass

from trainer.runtime.device import GIB


@dataclass(frozen=True)
class Speed:
    """What a GPU does in practice: products in FLOP/s, element-wise work and copies from pinned
    host memory in bytes/s, and the seconds in which Python starts a kernel; what a disk beside it
    reads.

    Measured on the H200 only; a cautious part of the data sheet for the others.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]
    flops: float
    bytes_per_s: float
    bus_bytes_per_s: float
    measured: bool = False
    launch_s: float = 60e-6
    disk_bytes_per_s: float = 1e9


GPUS = {
    "t4": Speed("Tesla T4", 14.7, (7, 5), 22e12, 0.25e12, 11e9),
    "l4": Speed("NVIDIA L4", 22.0, (8, 9), 55e12, 0.24e12, 22e9),
    "a10g": Speed("NVIDIA A10G", 22.0, (8, 6), 60e12, 0.48e12, 22e9),
    "a100": Speed("NVIDIA A100", 39.4, (8, 0), 230e12, 1.3e12, 22e9),
    "h100": Speed("NVIDIA H100", 79.1, (9, 0), 600e12, 2.2e12, 45e9),
    "h200": Speed("NVIDIA H200", 139.7, (9, 0), 640e12, 2.6e12, 55e9, measured=True),
}


# Nodes with one such GPU and their memory in GiB, the smallest of each cloud first.
NODES = {
    "t4": (
        {"g4dn.xlarge": 16, "g4dn.2xlarge": 32, "g4dn.4xlarge": 64, "g4dn.8xlarge": 128},
        {"n1-standard-4": 15, "n1-standard-8": 30, "n1-highmem-8": 52, "n1-highmem-16": 104},
        {"Standard_NC4as_T4_v3": 28, "Standard_NC8as_T4_v3": 56, "Standard_NC16as_T4_v3": 110},
    ),
    "l4": (
        {"g6.xlarge": 16, "g6.2xlarge": 32, "g6.4xlarge": 64, "g6.8xlarge": 128},
        {"g2-standard-4": 16, "g2-standard-8": 32, "g2-standard-16": 64, "g2-standard-32": 128},
    ),
    "a10g": ({"g5.xlarge": 16, "g5.2xlarge": 32, "g5.4xlarge": 64, "g5.8xlarge": 128},),
    "a100": ({"a2-highgpu-1g": 85},),
    "h100": ({"p5.4xlarge": 256}, {"a3-highgpu-1g": 234}, {"Standard_NC40ads_H100_v5": 320}),
}
NODE_SHARE = 0.9  # of a node's memory, which a kubelet leaves to pods


UNKNOWN = Speed("another GPU", 0, (0, 0), 50e12, 0.5e12, 11e9)


def multiplies_unasked(capability: tuple[int, int] | None, precision: str) -> bool:
    """Whether torch's product of rows with an expert each is one kernel there: then the CPU need
    not know how many rows each has."""
    return precision == "bf16" and capability is not None and capability[0] in (9, 10)


def speed_of(device_name: str) -> Speed:
    """The entry of `GPUS` whose model is in `device_name`, else a guess."""
    return next((s for s in GPUS.values() if s.name.split()[-1] in device_name), UNKNOWN)


def nodes_with(device_name: str, host_bytes: int) -> list[str]:
    """The smallest node of each cloud with such a GPU and so much memory for a pod."""
    key = next((k for k, s in GPUS.items() if s.name.split()[-1] in device_name), "")
    fitting = (
        next((node for node, gib in cloud.items() if gib * GIB * NODE_SHARE >= host_bytes), None)
        for cloud in NODES.get(key, ())
    )
    return [node for node in fitting if node is not None]
