"""How long a run takes on this CPU, by its own work: steps on its blocks and answers to its
questions, on a base of the same sizes with random weights.

What else runs on the machine slows the one as the other. Names of CPUs say nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer import STARTED
from trainer.commands.look import Look
from trainer.evaluation.afterwards import READ
from trainer.monitoring.counting import uncounted
from trainer.planner.choose import CPU_UNPACKED_BYTES, Execution
from trainer.planner.memory_plan import FULL
from trainer.runtime.device import Precision
from trainer.runtime.wording import lasting
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.dataset.packing import Block
    from trainer.engine.decoder import Engine
    from trainer.inference.generate import Answerer

TRIED_S = 4.0  # of steps, behind one that is not counted
ASKED, ANSWERED = 8, 5  # questions, and tokens of each answer
LEAST_ALONE = 0.02  # of the time that something took: a thread that had a core for less is none
BUSY = 1.2  # times as long as if nothing else ran: worth telling

Pair = npt.NDArray[np.float64]  # seconds as they were, and if nothing else had run here


@dataclass(frozen=True)
class Trial:
    """Seconds: of a trained token; until a first step would begin; until ASKED questions have been
    read, and for one more token of each answer. As they were on this machine just now; `alone`
    has them as they would be if nothing else ran here."""

    trained_s: float
    start_s: float
    read_s: float
    answered_s: float
    alone: "Trial | None" = None

    def training_s(self, look: Look, tokens: int) -> float:
        """Of so many tokens, and of the held-out loss that is measured meanwhile."""
        from trainer.training.validation import POINTS, HeldOutLoss

        steps = look.steps
        held_out = HeldOutLoss(
            look.data.held_out, steps=steps, step_blocks=look.schedule.step_blocks
        )
        measured = held_out.measured_blocks * min(steps, POINTS)
        return self.trained_s * (tokens + READ * measured * look.block_tokens)

    def afterwards_s(self, look: Look, training_s: float) -> float:
        """Of questions, losses and checks, behind the training."""
        after = look.afterwards
        if not look.data.questions:  # to be tried: they are still to be made, if any
            return after.seconds(training_s, self.trained_s)
        each_s = self.read_s / ASKED, self.answered_s / ASKED
        return after.asking_s(training_s, *each_s) + after.reading_s(self.trained_s)

    def parts_s(self, look: Look, tokens: int) -> tuple[float, float, float]:
        """Of a run: its training, what comes behind it, and all with its start."""
        training_s = self.training_s(look, tokens)
        after_s = self.afterwards_s(look, training_s)
        return training_s, after_s, self.start_s + training_s + after_s


def whole_time(trial: Trial, look: Look, tokens: int) -> str:
    """Of all the run, in words: as this machine is now and, where that differs, as it can be."""
    *_, now_s = parts = trial.parts_s(look, tokens)
    training, after, whole = map(lasting, parts)
    text = (
        f"{training} for {tokens:,} tokens, then {after} of questions and checks; {whole} in all "
        "with its start"
    )
    if trial.alone is not None:
        *_, alone_s = parts = trial.alone.parts_s(look, tokens)
        training, after, whole = map(lasting, parts)
        if now_s > BUSY * alone_s:
            alone = f"{training}, then {after}; {whole} in all"
            text += f". Other programs take time now; without them: {alone}"
    return text


def can_be_tried(look: Look, execution: Execution) -> bool:
    """Whether a few steps take seconds; what trains for days need not be foretold so well. Not of
    experts, of weights that somebody else has quantised, nor by transformers' own code."""
    shape = look.base.shape()
    is_small = shape.linear_parameters * FULL <= CPU_UNPACKED_BYTES
    is_plain = not shape.expert_parameters and not look.base.is_quantised
    return is_small and is_plain and execution.plan is not None


def try_run(look: Look, settings: Settings, precision: Precision, execution: Execution) -> Trial:
    """Of a run for which `can_be_tried`. Takes some ten seconds, and more for a larger base."""
    from trainer.inference.generate import Answerer
    from trainer.models.load import attach_adapter
    from trainer.models.random_base import random_base

    model = attach_adapter(random_base(look.base, precision), settings)
    waited_s = _waited_s()
    start_s = np.array([time.monotonic() - STARTED] * 2) - (0.0, waited_s)
    found = [_trained_s(look, model, precision, execution), start_s, np.zeros(2), np.zeros(2)]
    if look.data.questions:
        with uncounted(), Answerer(model, look.tokenizer) as answerer:
            found[2:] = _answered_s(look, answerer)
    pairs = zip(*(_positive(seconds) for seconds in found), strict=True)
    just_now, alone = (Trial(*four) for four in pairs)
    return replace(just_now, alone=alone)


def _positive(seconds: Pair) -> list[float]:
    """Waiting is told with an error of its own."""
    now, alone = seconds.tolist()
    return [now, min(now, max(alone, LEAST_ALONE * now))]


def _trained_s(look: Look, model: Any, precision: Precision, execution: Execution) -> Pair:
    """Of a token: pass after pass over the blocks as a run does it, for TRIED_S; single blocks,
    where a micro-batch would take longer than that."""
    from trainer.engine.decoder import Engine

    assert execution.plan is not None  # as `can_be_tried` says
    engine = Engine(model, dtype=precision.dtype, plan=execution.plan, row_tokens=look.block_tokens)
    try:
        first_s, _ = _timed(lambda: _train_on(engine, look.data.train[:1]))  # counted nowhere
        together = execution.blocks if first_s * execution.blocks < TRIED_S else 1
        begin, trained = _now_s(), 0
        for start in cycle(range(0, len(look.data.train), together)):
            blocks = look.data.train[start : start + together]
            _train_on(engine, blocks)
            trained += len(blocks)
            if (spent_s := _now_s() - begin)[0] > TRIED_S:
                break
        return spent_s / (trained * look.block_tokens)
    finally:
        engine.close()


def _train_on(engine: "Engine", blocks: "Sequence[Block]") -> None:
    from trainer.dataset.collate import collate_for_engine, documents

    batch = collate_for_engine([vars(block) for block in blocks])
    ids, labels, positions = (batch[n] for n in ("input_ids", "labels", "position_ids"))
    engine.loss_sum(ids, labels, positions, documents(batch)).backward()


def _answered_s(look: Look, answerer: "Answerer") -> tuple[Pair, Pair]:
    """Until ASKED questions have a first token, and for each token behind it."""
    questions = [question.turns for question in look.data.questions]
    questions = (questions * ASKED)[:ASKED]

    def ask(tokens: int) -> Callable[[], object]:
        return lambda: answerer.replies(questions, tokens)

    ask(ANSWERED)()  # its weights are unpacked, its memory taken
    read_s = _timed(ask(1))
    return read_s, np.maximum(0.0, _timed(ask(ANSWERED)) - read_s) / (ANSWERED - 1)


def _timed(act: Callable[[], object]) -> Pair:
    begin = _now_s()
    act()
    return _now_s() - begin


def _now_s() -> Pair:
    now_s = time.perf_counter()
    return np.array([now_s, now_s - _waited_s()])


def _waited_s() -> float:
    """How long this thread could have run so far and had no core, by Linux; 0 where it is not told.

    Its processor time would say less: threads sleep while they wait for each other, on a machine
    that is their own too.
    """
    try:
        told = Path("/proc/thread-self/schedstat").read_text(encoding="utf-8")
        return int(told.split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
