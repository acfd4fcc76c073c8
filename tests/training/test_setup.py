"""A setup is one value: nothing in it is set later."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from support.training_setups import tiny_setup

from trainer.distributed.workers import Workers


def test_by_itself_a_setup_is_that_of_one_worker_with_the_base_whole(tmp_path: Path) -> None:
    setup = tiny_setup(tmp_path)
    assert setup.workers == Workers(0, 1)
    assert not setup.frozen_base.is_sharded
    assert setup.held_out == ()


def test_it_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        tiny_setup(tmp_path).execution = None  # type: ignore[misc, assignment]
