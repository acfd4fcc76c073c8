"""Decisions about the device, each with its reason; the arithmetic of Llama-2-7B."""

import subprocess
import sys
import threading

import pytest
import torch
from support.devices import A10, CPU, T4

from trainer.errors import SettingsError
from trainer.runtime import device as device_module
from trainer.runtime.device import Device, choose_precision, wake_gpu


@pytest.mark.parametrize(
    ("setting", "device", "name", "reason"),
    [
        ("auto", T4, "fp16", "no bf16; loss scaling on"),
        ("auto", A10, "bf16", "sm_86 has bf16"),
        ("auto", CPU, "fp32", "CPU"),
        ("fp16", A10, "fp16", "as set"),
    ],
)
def test_precision_follows_the_capability(
    setting: str, device: Device, name: str, reason: str
) -> None:
    precision = choose_precision(setting, device)
    assert precision.name == name
    assert reason in precision.reason


@pytest.mark.parametrize(("setting", "device"), [("bf16", T4), ("fp16", CPU)])
def test_a_precision_that_the_device_lacks_is_refused(setting: str, device: Device) -> None:
    with pytest.raises(SettingsError, match=f"QLORA_PRECISION={setting}"):
        choose_precision(setting, device)


def test_a_machine_without_a_driver_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "DRIVER", "libnone.so.1")
    device_module._make_context()
    threads = threading.active_count()
    monkeypatch.setattr(device_module, "CONTROL", device_module.Path("/dev/none"))
    wake_gpu()
    assert threading.active_count() == threads


USES_IT = """
from trainer.runtime.device import find_device, wake_gpu
wake_gpu()
import torch
print(float(torch.ones(3, device="cuda").sum()), find_device().kind)
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_torch_computes_on_a_gpu_that_was_woken_before() -> None:
    done = subprocess.run([sys.executable, "-c", USES_IT], capture_output=True, text=True)
    assert done.stdout.split() == ["3.0", "cuda"], done.stderr[-500:]
