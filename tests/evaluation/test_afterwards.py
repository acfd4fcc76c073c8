"""What comes behind a training is told in the time of the training's own tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import variables

from trainer.commands.look import look_at
from trainer.evaluation.afterwards import ANSWERED, FEW, READ, SHARE, Afterwards
from trainer.evaluation.gate import MOST_BLOCKS
from trainer.settings import Settings

AFTER = Afterwards(asked=28, asked_base=18, most=10, usual=5.0, read=1000)


def test_both_models_answer_and_read_and_the_tuned_one_ends_its_answers() -> None:
    of_base, of_tuned = FEW + SHARE * 10, FEW + SHARE * 20  # more are given at once
    answers = of_base * 10 + of_tuned * 5
    assert AFTER.seconds(100.0, 0.01) == pytest.approx(
        0.01 * (ANSWERED * answers + READ * AFTER.read)
    )
    assert AFTER.asking_s(100.0, 0.1, 0.01) == pytest.approx(
        (of_base + of_tuned) * 0.1 + answers * 0.01
    )


def test_questions_have_a_limit_and_checks_come_on_top() -> None:
    slow = AFTER.seconds(1000.0, 1.0)
    assert slow == 100.0 + READ * AFTER.read  # a tenth of the training
    assert AFTER.most_asking_s(10.0) == 30.0
    assert replace(AFTER, with_passages=True).most_asking_s(10.0) == 60.0
    assert replace(AFTER, asked=0, asked_base=0).seconds(1000.0, 1.0) == READ * 1000


def test_a_gpu_s_answers_have_a_limit_alone() -> None:
    assert AFTER.in_words(10.0, 1.0, on_gpu=True) == "questions for 30 seconds at most, and checks"
    assert AFTER.in_words(10.0, 0.01, on_gpu=False) == "12 seconds of questions and checks"


def test_what_is_read_is_counted_from_the_data(tmp_path: Path) -> None:
    look = look_at(Settings.read({}, variables(tmp_path), trains=False))
    found, data = look.afterwards, look.data
    assert (found.asked, found.asked_base) == (len(data.questions), len(data.questions))
    assert 1 < found.usual < found.most  # which is twice the longest
    blocks = 2 * len(data.held_out) + 2 * min(MOST_BLOCKS, len(data.held_out))
    general = found.read - blocks * look.block_tokens
    assert 2 * 1000 < general < 2 * 10_000  # some two thousand words, read by both
