"""How long a run may ask, and what of the base it knows already."""

from pathlib import Path

import pytest

from trainer.evaluation import asking
from trainer.evaluation.asking import Asking, _portions, asking_of_a_run
from trainer.inference.reply import Reply
from trainer.models.base_model import Base
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

CPU, FP32 = Device("cpu", "CPU", None, 0), Precision("fp32", "a test")


@pytest.mark.parametrize(("training_s", "limit_s"), [(0, 30), (299, 30), (4000, 400)])
def test_asking_takes_a_tenth_of_the_training_and_at_least_half_a_minute(
    training_s: float, limit_s: float, tmp_path: Path
) -> None:
    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(tmp_path)}, trains=False)
    base = Base(tmp_path, "base", "1")
    assert asking_of_a_run(settings, base, FP32, CPU, training_s=training_s).limit_s == limit_s


def test_what_is_asked_fits_the_time_by_what_the_first_ones_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 1.5 s a question: 8, then 32, then as many as the rest of 90 s is for."""
    now = [1000.0]
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])
    found = []
    for part in _portions(500, "cpu", 90.0):
        found.append(part.stop - part.start)
        now[0] += 1.5 * found[-1]
    assert found == [8, 32, 20]
    assert [part.stop for part in _portions(70, "cpu", None)] == [32, 64, 96]
    assert [part.stop for part in _portions(500, "cpu", 0.0)] == [8]


def test_trained_questions_have_a_third_of_the_time_where_there_are_others() -> None:
    held_out, trained = Asking(limit_s=90.0, refusal="no").divided()
    assert (held_out.limit_s, trained.limit_s) == pytest.approx((60, 30))
    assert held_out.refusal == trained.refusal == "no"
    assert Asking().divided() == (Asking(), Asking())


def test_a_base_s_answers_are_those_of_its_revision_and_precision(tmp_path: Path) -> None:
    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(tmp_path)}, trains=False)

    def known(revision: str, precision: str) -> Reply | None:
        how = asking_of_a_run(
            settings, Base(tmp_path, "b", revision), Precision(precision, ""), CPU, training_s=1
        )
        assert how.base_replies is not None
        if (revision, precision) == ("1", "fp32"):
            how.base_replies.keep({"key": Reply("yes", True)})
        return how.base_replies.of("key")

    assert known("1", "fp32") == Reply("yes", True)
    assert known("2", "fp32") is None and known("1", "bf16") is None
