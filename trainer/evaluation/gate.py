"""Whether a trained adapter may be published: what is wrong with it, as it was written to disk.

What is judged is the folder that would be uploaded, not what is in memory: a file cut off, a
tensor of another type or a config that names another base is found here or by a user.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.dataset.holdout import HeldOutBy
from trainer.dataset.packing import Block, trains_ends
from trainer.evaluation.compare import Evaluation, is_finite
from trainer.evaluation.loss import held_out_loss
from trainer.evaluation.verdict import (
    answers_improved,
    forgotten,
    knows_more,
    what_to_change,
    what_to_soften,
)
from trainer.models.adapter_config import CONFIG, WEIGHTS
from trainer.models.adapter_files import with_twins
from trainer.runtime.json_records import read_object, well_formed
from trainer.runtime.log import one_line
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.models.base_model import Base

RELOADED = "reloaded"  # the name of the adapter that is read back, beside the trained one
MOST_BLOCKS = 16  # compared after reloading; a wrong tensor shows in the first
SAME_LOSS = 1e-3  # relative: the same kernels on the same device differ by less
EVEN_CHANCE = math.log(2)
NOISE = 0.2  # nats: the chance of an end falls to four fifths
ALIKE = 0.01  # of the base's loss: one that moved by less moved by no more than noise


def rejection_reasons(
    folder: Path,
    model: Any,
    base: "Base",
    evaluation: Evaluation,
    *,
    train: Sequence[Block],
    held_out: Sequence[Block],
    ends: Sequence[int],
    settings: Settings,
    counts: Mapping[str, Any],
) -> list[str]:
    """What forbids publishing the adapter in `folder`, each with the next step; empty if nothing.

    `model` carries the adapter as it was trained, `ends` are the tokens that end an answer;
    `counts` say what the data holds.
    """
    found = [*_config_faults(folder, base), *_weight_faults(folder, model, base)]
    if not found:  # peft would only fail on what is named already
        found += _reload_faults(folder, model, (held_out or train)[:MOST_BLOCKS])
    softer = what_to_soften(settings, counts)
    more = what_to_change(settings, counts)
    found += _loss_faults(evaluation, settings.max_loss_ratio, more, softer)
    if counts["records"]:  # a document that is cut has no end, and few of them teach none
        found += _end_faults(evaluation, train, ends, softer)
    found += _forgetting_faults(evaluation, settings.max_forgetting, softer)
    return found


def _config_faults(folder: Path, base: "Base") -> Iterator[str]:
    try:
        with well_formed("an adapter's config"):
            config = read_object(folder / CONFIG)
            named = config["base_model_name_or_path"], config["revision"]
    except (OSError, ValueError) as error:
        yield f"{CONFIG} cannot be read ({type(error).__name__}); look at the disk and start again"
        return
    if named != (base.name, base.revision):
        yield (
            f"{CONFIG} names the base {named[0]} at {named[1]}, but it was trained on {base.name} "
            f"at {base.revision}; use it with that one only"
        )


def _weight_faults(folder: Path, model: Any, base: "Base") -> Iterator[str]:
    """The file's tensors against those in memory, by name, size, type and content."""
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        written = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        yield f"{WEIGHTS} is cut off or damaged ({error}); look at the disk and start again"
        return
    trained = with_twins(get_peft_model_state_dict(model, save_embedding_layers=False), base)
    names = [name for name in trained if name in written]
    if written.keys() != trained.keys():
        yield (
            f"{WEIGHTS} has {len(written)} tensors of which {len(names)} were trained, and not the "
            f"{len(trained)} of the run"
        )
    yield from _first(
        names,
        lambda n: written[n].shape != trained[n].shape,
        lambda n: f"is {_size(written[n])} and not {_size(trained[n])}: another rank or base",
    )
    yield from _first(
        names,
        lambda n: written[n].dtype != trained[n].dtype,
        lambda n: f"is {written[n].dtype} and not {trained[n].dtype}",
    )
    yield from _first(
        names,
        lambda n: not written[n].isfinite().all(),
        lambda n: "holds NaN or infinity; lower QLORA_LEARNING_RATE",
    )
    if names and not any(written[name].any() for name in names if "lora_B" in name):
        yield ("the adapter is zero and changes nothing; leave QLORA_LEARNING_RATE at auto")


def _first(names: Sequence[str], is_wrong: Any, fact: Any) -> Iterator[str]:
    """One fault for all `names` that share it."""
    wrong = [name for name in names if is_wrong(name)]
    if wrong:
        yield f"{len(wrong)} of {len(names)} tensors: {wrong[0]} {fact(wrong[0])}"


def _size(tensor: Any) -> str:
    return " x ".join(map(str, tensor.shape))


def _reload_faults(folder: Path, model: Any, blocks: Sequence[Block]) -> Iterator[str]:
    """Read back by peft onto the base it was trained on, the adapter has to give the same loss."""
    trained, _ = held_out_loss(model, blocks)
    try:
        model.load_adapter(str(folder), RELOADED)
        model.set_adapter(RELOADED)
        reloaded, _ = held_out_loss(model, blocks)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = one_line(error, most=200)
        yield f"peft cannot load it again ({type(error).__name__}: {reason})"
        return
    finally:
        if RELOADED in model.peft_config:
            model.set_adapter("default")
            model.delete_adapter(RELOADED)
    if not abs(reloaded - trained) <= SAME_LOSS * max(1.0, abs(trained)):
        yield (
            f"loaded again it has a loss of {reloaded:.4f} and not {trained:.4f}: what was written "
            "is not what was trained"
        )


def _loss_faults(evaluation: Evaluation, max_ratio: float, more: str, softer: str) -> Iterator[str]:
    """`more` and `softer` are next steps for a run that learned too little and too roughly."""
    base, tuned = evaluation.base.loss, evaluation.tuned.loss
    if tuned is None or base is None:
        return
    name = evaluation.loss_name
    if not is_finite(tuned):
        yield f"its {name} is {tuned}; {softer}"
        return
    if tuned <= max_ratio * base:
        return
    losses = f"its {name} is {tuned:.4f}, the base model's {base:.4f}"
    limit = f"and QLORA_MAX_LOSS_RATIO is {max_ratio:g}"
    if abs(tuned - base) < ALIKE * base and max_ratio >= 1 - ALIKE:
        if not answers_improved(evaluation):
            yield (
                f"it learned nothing: {losses}, and it answers no better; {more}, or set "
                f"QLORA_MAX_LOSS_RATIO={1 + ALIKE} to publish it all the same"
            )
    elif tuned <= base:
        yield f"{losses}, {limit}; {more}, or raise that"
    elif not knows_more(evaluation):  # who answers right in other words may be surer of his own
        more_data = (
            "" if evaluation.by == HeldOutBy.NOTHING else ", or add data like what is held out"
        )
        yield f"{losses}, {limit}; {softer}{more_data}"


def _end_faults(
    evaluation: Evaluation, train: Sequence[Block], ends: Sequence[int], softer: str
) -> Iterator[str]:
    """It has to know where an answer ends: the end was trained, and it was not unlearnt; `softer`
    is the next step."""
    if not trains_ends(train, ends):
        yield (
            "no token that ends an answer was trained, so that it would never stop; raise "
            "QLORA_MAX_LENGTH until answers fit"
        )
    base, tuned = evaluation.base.end_loss, evaluation.tuned.end_loss
    if base is not None and tuned is not None and tuned > max(base + NOISE, EVEN_CHANCE):
        yield (
            f"where an answer ends it stops with a chance of {math.exp(-tuned):.0%}, the base "
            f"model of {math.exp(-base):.0%}; {softer}, or add answers that end"
        )


def _forgetting_faults(evaluation: Evaluation, most: float | None, softer: str) -> Iterator[str]:
    lost = forgotten(evaluation)
    if most is not None and lost is not None and not lost <= most:
        yield (
            f"its loss on general text rose by {lost:.2f} nats a token, and QLORA_MAX_FORGETTING "
            f"is {most:g}; {softer}"
        )
