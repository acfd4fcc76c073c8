"""What the data became and how long it is trained, in words: for the report, the model card and
`inspect` alike."""

from collections.abc import Iterable, Sequence

from trainer.dataset.counts import held_out_in_words
from trainer.dataset.seen import SeenRecord
from trainer.reporting.run_record import DataCounts, RecordedSchedule, RecordedSettings
from trainer.runtime.log import one_line
from trainer.runtime.wording import counted

_KIND_CHARS = 14
Rows = Iterable[tuple[str, str]]
"""(name, text), the text of several lines where it lists something"""


def data_rows(settings: RecordedSettings, data: DataCounts) -> Rows:
    """What was read, what was left out, and what of it is trained."""
    yield "data", settings.data_uri
    if settings.eval_uri:
        yield "evaluation data", settings.eval_uri
    yield "read", read_from(data)
    yield (
        "left out",
        ", ".join(
            (
                counted(data.duplicates, "copy", "copies"),
                counted(data.near_duplicates, "near copy", "near copies"),
            )
        ),
    )
    yield "skipped", _listed(data.skipped, data.skipped_first)
    yield "noticed", "\n".join(data.assumed_first) or "nothing"
    yield "trained", _trained(data)
    whose = ": the answers; the rest is read" if data.records and not data.documents else ""
    yield "tokens", f"{data.tokens:,}, of which {data.trained_tokens:,} are trained{whose}"
    yield (
        "blocks",
        f"{data.blocks:,} of {settings.max_length:,} tokens each, {data.padding_share:.1%} padding",
    )
    yield "cut to fit", f"{data.cut_records:,} of {counted(data.records, 'record')}"
    yield "ends", f"{data.trained_ends:,} of answers and documents are trained"
    yield "held out", held_out(data)


def file_type_rows(data: DataCounts) -> list[list[str]]:
    """What files of each kind became: a header, then a row for each kind."""
    kinds = data.by_file_type
    names = list(next(iter(kinds.values()), {}))
    return [
        ["", *names],
        *(
            [one_line(kind, _KIND_CHARS, "…"), *(f"{counts[name]:,}" for name in names)]
            for kind, counts in kinds.items()
        ),
    ]


def schedule_rows(schedule: RecordedSchedule) -> Rows:
    """How long is trained and how fast, and why."""
    yield (
        "schedule",
        f"{_passes(schedule.epochs)}, {counted(schedule.step_blocks, 'block')} a step, peak "
        f"learning rate {schedule.learning_rate:g}, {schedule.warmup_ratio:.0%} warm-up",
    )
    if schedule.reasons:
        yield "because", "\n".join(schedule.reasons)


def title(seen: SeenRecord) -> str:
    """Which record is shown, and how much of it is trained."""
    which = f", {seen.number:,} of {seen.count:,}" if seen.count > 1 else ""
    plain = f"; {', '.join(seen.spelt_out)} in it is plain text" if seen.spelt_out else ""
    part = f"; the first of {seen.sequences:,} sequences" if seen.sequences > 1 else ""
    cut = "; its end is cut off" if seen.cut else ""
    tokens = f"{seen.tokens:,} tokens, {seen.trained_tokens:,} trained"
    return f"{seen.file}{which}: {tokens}{part}{cut}{plain}"


def read_from(data: DataCounts) -> str:
    """What was read, in words."""
    kinds = (
        (
            data.conversation,
            "question with its answer or conversation",
            "questions with answers or conversations",
        ),
        (data.completion, "prompt with its completion", "prompts with completions"),
        (data.text, "text", "texts"),
    )
    read = [counted(count, *words) for count, *words in kinds if count]
    return f"{', '.join(read)} from {counted(data.files, 'file')}"


def held_out(data: DataCounts) -> str:
    """What was held out, in words."""
    if not data.held_out_by:
        return counted(data.held_out, "record or document", "records or documents")
    return held_out_in_words(
        data.held_out_by,
        data.held_out,
        data.held_out_documents,
        data.held_out_first,
        data.records,
    )


def _trained(data: DataCounts) -> str:
    turns = f" of {counted(data.turns, 'turn')}" if data.turns else ""
    return f"{counted(data.records, 'record')}{turns}, {counted(data.documents, 'document')}"


def _passes(epochs: float) -> str:
    return f"{epochs:g} {'pass' if epochs == 1 else 'passes'}"


def _listed(count: int, first: Sequence[str]) -> str:
    more = [f"and {count - len(first):,} more"] if count > len(first) else []
    return "\n".join([f"{count:,}", *first, *more])
