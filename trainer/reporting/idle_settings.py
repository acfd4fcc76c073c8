"""Settings that change nothing in this run: whoever set one expects something of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.reporting.run_record import DataCounts
from trainer.runtime.wording import counted
from trainer.settings import RECIPES, Settings, options

if TYPE_CHECKING:
    from trainer.models.base_model import Base


def idle_settings(settings: Settings, base: "Base", data: DataCounts) -> list[str]:
    """A sentence for each, with the reason."""
    without = [
        f"QLORA_{name.upper()} has no effect: {reason}"
        for name, reason in (
            *_about_columns(settings, data),
            *_about_schedule(settings, data),
            *_about_places(settings, base),
        )
    ]
    own = data.system_turns
    if settings.system_prompt and 0 < own < data.records:
        which = counted(own, "record, which has", "records, which have")
        without.append(f"QLORA_SYSTEM_PROMPT has no effect on {which} a system turn already")
    return without


def _about_columns(settings: Settings, data: DataCounts) -> Iterator[tuple[str, str]]:
    for role in ("question", "answer"):
        if getattr(settings, f"{role}_column") and not data.conversation:
            yield f"{role}_column", "no record has questions and answers"
    if settings.system_prompt:
        yield from _about_system_prompt(data)
    if settings.text_column and not data.text:
        yield "text_column", "no record is text"


def _about_system_prompt(data: DataCounts) -> Iterator[tuple[str, str]]:
    """What is asked of the adapter later has it all the same."""
    later = "; only questions that are asked later have it"
    if not data.conversation:
        yield "system_prompt", f"no record is a conversation{later}"
    elif data.system_turns and data.system_turns >= data.records:
        yield "system_prompt", f"every record has a system turn already{later}"


def _about_schedule(settings: Settings, data: DataCounts) -> Iterator[tuple[str, str]]:
    recipe = RECIPES[settings.recipe]
    if settings.max_steps is not None and settings.epochs is not None and "epochs" not in recipe:
        yield "epochs", "QLORA_MAX_STEPS says how long to train"
    step_blocks = settings.effective_batch_size
    if (
        step_blocks is not None
        and step_blocks > data.blocks
        and "effective_batch_size" not in recipe
    ):
        yield (
            "effective_batch_size",
            f"{step_blocks} blocks make a step, and there are {data.blocks}",
        )
    idle = [one for one in options() if one.name in recipe and not _takes(settings, one.name)]
    if recipe and len(idle) == len(recipe):
        names = " and ".join(one.env for one in idle)
        yield "recipe", f"all that `{settings.recipe}` sets is set otherwise, by {names}"


def _takes(settings: Settings, name: str) -> bool:
    """Whether the recipe's value is used."""
    (option,) = (one for one in options() if one.name == name)
    is_given = getattr(settings, name) == option.parse(RECIPES[settings.recipe][name])
    return is_given and not (name == "epochs" and settings.max_steps is not None)


def _about_places(settings: Settings, base: "Base") -> Iterator[tuple[str, str]]:
    if settings.base_revision != "main" and not base.is_from_hub:
        yield "base_revision", "only a base from the hub has revisions"
    names = ("data_uri", "eval_uri", "output_uri", "base_model", "base_cache_uri")
    if any(getattr(settings, name).startswith("s3://") for name in names):
        return
    if settings.s3_requester_pays == "yes":
        yield "s3_requester_pays", "nothing comes from S3"
    if settings.s3_kms_key:
        yield "s3_kms_key", "nothing goes to S3"
