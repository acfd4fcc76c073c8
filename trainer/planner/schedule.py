"""How long a run trains and how fast: passes, blocks a step, learning rate, decided from the data.

A fact has to be met some twenty times before a model can tell it in other words, whatever the
rate, and that takes a few hundred optimizer steps. So small data is passed over often and in small
steps, large data as little as it needs. The figures behind each constant, and what was tried
beside them, are in docs/measurements/0013-schedule.md.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.runtime.log import figures
from trainer.runtime.wording import counted
from trainer.setting_checks import ALL_LINEAR
from trainer.settings import Settings

log = logging.getLogger(__name__)

ROOT_PASSES = 240  # passes times the root of the blocks: 138 blocks (1,200 records) take 20
FEWEST_PASSES, MOST_PASSES = 3.0, 60.0
FEWEST_STEPS = 40  # of records, in the square more where a model is narrower than WIDTH
MOST_WIDE_BLOCKS = 9_000  # in all passes: an adapter on more than attention gets worse beyond
PROSE_SHARE = 0.25  # of the passes: prose teaches style, which few passes do, and not facts
ENOUGH_STEPS = 350  # fewer were not enough at any rate; more of them where a model is narrower
STEP_BLOCKS = (16, 8, 4, 2, 1)
WARMUP_RATIO = 0.03
# Peak rates at 4 blocks a step and a width of 576; the optimum falls with the width.
ATTENTION_RATE, WIDE_RATE = 5e-3, 2e-3
WIDTH = 576  # twice as wide, half the rate: 2.8e-4 at 4,096, as in LoRA Without Regret (2025)
BATCH_POWER = 0.4  # the best rate of 1 block a step is 0.6 of that of 4, of 8 blocks 1.4
MOST_BATCH = 8
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


@dataclass(frozen=True)
class Schedule:
    """What an optimizer step is and how many there are; `reasons` say why, for those not given."""

    epochs: float
    step_blocks: int
    learning_rate: float
    warmup_ratio: float
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons)}


def choose_schedule(settings: Settings, *, blocks: int, records: int, hidden: int) -> Schedule:
    """What `settings` leave open, for so many `blocks` of a model of width `hidden`.

    `records` is how many of the examples are no running text. What is given stays as it is.
    """
    epochs = settings.epochs
    if epochs is None:
        epochs = _passes(settings, blocks, records, hidden)
    step_blocks = settings.effective_batch_size or _step_blocks(settings, epochs, blocks, hidden)
    filled = min(step_blocks, blocks)  # a step does not reach over the end of a pass
    if settings.max_steps is not None:
        epochs = round(settings.max_steps * filled / max(blocks, 1), 2)
    rate = settings.learning_rate
    if rate is None:
        rate = _rate(settings.target_modules, filled, hidden)
    warmup = settings.warmup_ratio if settings.warmup_ratio is not None else WARMUP_RATIO
    chosen = Schedule(epochs, step_blocks, rate, warmup)
    reasons = tuple(_reasons(settings, chosen, blocks, records, hidden))
    return replace(chosen, reasons=reasons)


def optimizer_steps(settings: Settings, schedule: Schedule, blocks: int) -> int:
    """How many a run of so many `blocks` takes."""
    if settings.max_steps is not None:
        return settings.max_steps
    return math.ceil(_steps(schedule.epochs, blocks, schedule.step_blocks))


def _passes(settings: Settings, blocks: int, records: int, hidden: int) -> float:
    passes = ROOT_PASSES / math.sqrt(max(blocks, 1))
    if not _is_attention(settings.target_modules):
        passes = min(passes, MOST_WIDE_BLOCKS / max(blocks, 1))
    if not records:
        return round(min(max(PROSE_SHARE * passes, 1.0), PROSE_SHARE * MOST_PASSES), 1)
    of_one = max(1, math.ceil(blocks / (settings.effective_batch_size or 1)))
    fewest = FEWEST_STEPS * _narrow(hidden) ** 2 / of_one
    return round(max(min(max(passes, FEWEST_PASSES), MOST_PASSES), fewest), 1)


def _step_blocks(settings: Settings, epochs: float, blocks: int, hidden: int) -> int:
    """The most blocks a step that leave enough steps; a multiple of a micro-batch that is given."""
    micro = settings.batch_size or 1
    possible = (n for n in STEP_BLOCKS if n % micro == 0 and n <= blocks)
    enough = _enough_steps(hidden)
    return next((n for n in possible if _steps(epochs, blocks, n) >= enough), micro)


def _enough_steps(hidden: int) -> int:
    return round(ENOUGH_STEPS * _narrow(hidden))


def _narrow(hidden: int) -> float:
    """So many times the steps does a model of this width need."""
    return max(1.0, WIDTH / hidden)


def _steps(epochs: float, blocks: int, step_blocks: int) -> float:
    """A pass ends with a step of what is left."""
    return epochs * math.ceil(blocks / step_blocks)


def _rate(targets: tuple[str, ...], step_blocks: int, hidden: int) -> float:
    """Two digits of it: more would pretend to know better."""
    width = WIDTH / hidden
    if not _is_attention(targets):
        return float(f"{WIDE_RATE * width:.1e}")
    batch = math.pow(min(step_blocks, MOST_BATCH) / 4, BATCH_POWER)
    return float(f"{ATTENTION_RATE * width * batch:.1e}")


def _is_attention(targets: tuple[str, ...]) -> bool:
    return ALL_LINEAR not in targets and set(targets) <= ATTENTION


def _reasons(
    settings: Settings, chosen: Schedule, blocks: int, records: int, hidden: int
) -> Iterator[str]:
    if settings.epochs is None and settings.max_steps is None:
        what = "records teach facts when they are met often" if records else "prose teaches style"
        yield f"{chosen.epochs:g} passes over {counted(blocks, 'block')}: {what}"
    if settings.effective_batch_size is None:
        yield _blocks_a_step(chosen, blocks, settings.batch_size, _enough_steps(hidden))
    if settings.learning_rate is None:
        is_attention = _is_attention(settings.target_modules)
        kind = "attention alone" if is_attention else "more layers than those of attention"
        rate = f"a peak learning rate of {chosen.learning_rate:g}"
        yield f"{rate}: what suits an adapter on {kind}, in a base {hidden:,} values wide"


def _blocks_a_step(chosen: Schedule, blocks: int, micro_batch: int | None, enough: int) -> str:
    found = counted(chosen.step_blocks, "block")
    if micro_batch is not None and micro_batch == chosen.step_blocks:
        return f"{found} a step: one micro-batch, as QLORA_BATCH_SIZE says"
    if _steps(chosen.epochs, blocks, chosen.step_blocks) < enough:
        return f"{found} a step: so little data has no more steps"
    return f"{found} a step: that leaves {enough} steps and more"


def log_schedule(schedule: Schedule) -> None:
    """One line for each reason; the figures stand beside the first."""
    for number, reason in enumerate(schedule.reasons):
        log.info("schedule: %s", reason, extra={} if number else figures(**schedule.to_json()))
