"""How long a run takes on this CPU, by its own work: steps on its blocks and answers to its
questions, on a base of the same sizes with random weights.

What else runs on the machine slows the one as the other. Names of CPUs say nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from trainer import STARTED
from trainer.commands.look import Look
from trainer.evaluation.gate import MOST_BLOCKS
from trainer.evaluation.general import general_blocks
from trainer.planner.choose import CPU_UNPACKED_BYTES, Execution
from trainer.planner.memory_plan import FULL
from trainer.runtime.device import Precision
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.dataset.packing import Block
    from trainer.engine.decoder import Engine
    from trainer.inference.generate import Answerer

TRIED_S = 4.0  # of steps, behind one that is not counted
ASKED, ANSWERED = 8, 5  # questions, and tokens of each answer
FORWARD = 0.5  # of a step: what is frozen has no gradient of its own


@dataclass(frozen=True)
class Trial:
    """Seconds, as they were on this machine just now: of a trained token; until a first step would
    begin; until ASKED questions have been read, and for one more token of each answer. A token took
    `busy` times as long as it would if nothing else ran here."""

    trained_s: float
    start_s: float
    read_s: float
    answered_s: float
    busy: float = 1.0

    def training_s(self, look: Look, tokens: int) -> float:
        """Of so many tokens, and of the held-out loss that is measured meanwhile."""
        from trainer.training.validation import POINTS, HeldOutLoss

        steps = look.steps
        held_out = HeldOutLoss(
            look.data.held_out, steps=steps, step_blocks=look.schedule.step_blocks
        )
        measured = held_out.measured_blocks * min(steps, POINTS)
        return self.trained_s * (tokens + FORWARD * measured * look.block_tokens)

    def whole_s(self, look: Look, training_s: float) -> float:
        """Of all the run: its start, its training, questions, losses and checks."""
        return self.start_s + training_s + self._asking_s(look, training_s) + self._losses_s(look)

    def _asking_s(self, look: Look, training_s: float) -> float:
        """Base and tuned model; the tuned one ends its answers where the references end."""
        from trainer.evaluation.asking import most_seconds
        from trainer.inference.generate import longest_answer

        if not look.data.questions:
            return 0.0
        most = longest_answer(look.tokenizer, look.data.questions)
        base_s = self.read_s + most * self.answered_s
        tuned_s = self.read_s + most / 2 * self.answered_s
        asked_s = len(look.data.questions) * (base_s + tuned_s)
        asked_s += len(look.data.trained_questions) * tuned_s
        return min(asked_s / ASKED, most_seconds(training_s))

    def _losses_s(self, look: Look) -> float:
        """Of both models on held-out and general text, and of the adapter when it is read back."""
        general = general_blocks(look.tokenizer)
        tokens = 2 * len(look.data.held_out) * look.block_tokens
        tokens += 2 * sum(len(b.input_ids) for b in (*general.text, *general.answers))
        tokens += 2 * min(MOST_BLOCKS, len(look.data.train)) * look.block_tokens
        return FORWARD * self.trained_s * tokens


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
    start_s = time.monotonic() - STARTED
    trained_s, busy = _trained_s(look, model, precision, execution)
    if not look.data.questions:
        return Trial(trained_s, start_s, 0.0, 0.0, busy)
    with Answerer(model, look.tokenizer) as answerer:
        read_s, answered_s = _answered_s(look, answerer)
    return Trial(trained_s, start_s, read_s, answered_s, busy)


def _trained_s(
    look: Look, model: Any, precision: Precision, execution: Execution
) -> tuple[float, float]:
    """Seconds of a token, and `Trial.busy`: pass after pass over the blocks as a run does it, for
    TRIED_S; single blocks, where a micro-batch would take longer than that."""
    import torch

    from trainer.engine.decoder import Engine

    assert execution.plan is not None  # as `can_be_tried` says
    engine = Engine(model, dtype=precision.dtype, plan=execution.plan, row_tokens=look.block_tokens)
    try:
        first_s = _timed(lambda: _train_on(engine, look.data.train[:1]))  # counted nowhere
        together = execution.blocks if first_s * execution.blocks < TRIED_S else 1
        begin, begin_cpu, trained = time.perf_counter(), time.process_time(), 0
        for start in cycle(range(0, len(look.data.train), together)):
            blocks = look.data.train[start : start + together]
            _train_on(engine, blocks)
            trained += len(blocks)
            if (spent_s := time.perf_counter() - begin) > TRIED_S:
                break
        computed_s = (time.process_time() - begin_cpu) / torch.get_num_threads()
        return spent_s / (trained * look.block_tokens), max(1.0, spent_s / computed_s)
    finally:
        engine.close()


def _train_on(engine: "Engine", blocks: "Sequence[Block]") -> None:
    from trainer.dataset.collate import collate_for_engine, documents

    batch = collate_for_engine([vars(block) for block in blocks])
    ids, labels, positions = (batch[n] for n in ("input_ids", "labels", "position_ids"))
    engine.loss_sum(ids, labels, positions, documents(batch)).backward()


def _answered_s(look: Look, answerer: "Answerer") -> tuple[float, float]:
    """Seconds until ASKED questions have a first token, and for each token behind it."""
    questions = [question.turns for question in look.data.questions]
    questions = (questions * ASKED)[:ASKED]

    def ask(tokens: int) -> Callable[[], object]:
        return lambda: answerer.replies(questions, tokens)

    ask(ANSWERED)()  # its weights are unpacked, its memory taken
    read_s = _timed(ask(1))
    return read_s, max(0.0, _timed(ask(ANSWERED)) - read_s) / (ANSWERED - 1)


def _timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin
