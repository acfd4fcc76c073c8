"""Decisions about the device, each with its reason; the arithmetic of Llama-2-7B."""

import pytest
from support.devices import A10, CPU, T4

from trainer.errors import SettingsError
from trainer.runtime.device import Device, choose_precision


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
