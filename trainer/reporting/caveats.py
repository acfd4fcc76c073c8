"""What the reader of a report should know before trusting it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.dataset.counts import cautions
from trainer.dataset.holdout import HeldOutBy, loss_name
from trainer.evaluation.verdict import forgetting, verdict, verdict_by_heart
from trainer.monitoring.step_log import StepRow, best_held_out
from trainer.reporting.run_record import DataCounts
from trainer.runtime.wording import counted
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.evaluation.compare import Evaluation

FEW_QUESTIONS = 20
MOST_STOP = 0.95
CLEARLY = 0.02  # relative: losses that differ by less are alike


def find_caveats(
    data: DataCounts,
    rows: Sequence[StepRow],
    evaluation: "Evaluation",
    settings: Settings,
    *,
    kept_step: int | None = None,
) -> list[str]:
    """Each a sentence with the fact and, where there is one, what to do.

    `rows` are those of `metrics.jsonl`, one for each optimizer step; no advice is one that
    `settings` have taken. `kept_step` is the one whose adapter is published.
    """
    counts = data.to_json()
    judge = verdict_by_heart if data.held_out_by == HeldOutBy.NOTHING else verdict
    said = list(judge(evaluation, settings, counts))
    return [
        *said,
        *forgetting(evaluation, settings, counts),
        *_about_data(data, settings.max_length),
        *_about_held_out(data, evaluation),
        *(
            () if said else _about_length(loss_name(data.held_out_by), rows, kept_step)
        ),  # answers tell more than the loss does
        *_about_answers(evaluation),
    ]


def _about_data(data: DataCounts, max_length: int) -> Iterator[str]:
    if data.skipped:
        were = "was" if data.skipped == 1 else "were"
        skipped = counted(data.skipped, "file or record", "files or records")
        yield f"{skipped} could not be read and {were} left out"
    yield from cautions(data.to_json(), max_length)


def _about_held_out(data: DataCounts, evaluation: "Evaluation") -> Iterator[str]:
    count = len(evaluation.questions)
    if evaluation.left_out:
        yield (
            f"{count} of {count + evaluation.left_out} questions were asked, for all would have "
            f"taken long; the share of exact answers: {evaluation.interval}"
        )
    if evaluation.tuned.loss is None:
        yield "nothing could be held out, so the adapter was not judged; add data or QLORA_EVAL_URI"
    elif data.held_out_by == HeldOutBy.NOTHING:
        if not count:
            yield (
                "nothing could be held out, so the loss is that of trained text; add data or "
                "QLORA_EVAL_URI"
            )
    elif not count:
        yield "no question was held out, so answers were not judged; only the loss was"
    elif count < FEW_QUESTIONS:
        asked = counted(count, "question was", "questions were")
        yield f"only {asked} held out: one of them is {1 / count:.0%} of each share"
    if data.held_out_by == HeldOutBy.FACTS:
        held = data.held_out - data.held_out_documents
        yield (
            f"{counted(held, 'record was', 'records were')} held out whole to judge by, "
            "and the model was not taught what they say; QLORA_EVAL_URI with questions of your own "
            "trains them too"
        )


def _about_length(name: str, rows: Sequence[StepRow], kept_step: int | None) -> Iterator[str]:
    """`name` is that of the loss."""
    measured = [row for row in rows if row.get("held_out_loss") is not None]
    best = best_held_out(rows)
    if len(measured) < 4 or best is None:
        return
    last, before = measured[-1], measured[-1 - len(measured) // 4]
    if last["held_out_loss"] > (1 + CLEARLY) * best["held_out_loss"]:
        yield (
            f"the {name} was best at step {best['step']:,} ({best['held_out_loss']:.4f}) "
            f"and ends at {last['held_out_loss']:.4f}: "
            + (
                "the adapter is that of that step; fewer epochs or a lower rate end there sooner"
                if kept_step == best["step"]
                else "fewer epochs or a lower rate would do better"
            )
        )
    elif last["held_out_loss"] < (1 - 2 * CLEARLY) * before["held_out_loss"]:
        yield f"the {name} was still falling at the end: more epochs may do better"


def _about_answers(evaluation: "Evaluation") -> Iterator[str]:
    base, tuned = evaluation.base, evaluation.tuned
    if tuned.stopped is not None and tuned.stopped < MOST_STOP:
        yield f"{1 - tuned.stopped:.0%} of the answers did not stop by themselves"
    if (judge := evaluation.judgement) is not None and judge.failure is not None:
        asked = len(evaluation.questions)
        of = counted(asked, "question was", "questions were")
        yield f"{judge.questions} of {of} judged: {judge.failure}"
    if base.loss is not None and tuned.loss is not None and tuned.loss > base.loss:
        yield (
            f"its {evaluation.loss_name} rose from {base.loss:.2f} to {tuned.loss:.2f}: it is "
            "surer of its own words than of those of the references"
        )
    if base.f1 is not None and tuned.f1 is not None and tuned.f1 < base.f1:
        yield f"the answers' token F1 fell from {base.f1:.0%} to {tuned.f1:.0%}"
    if (refusals := evaluation.refusals) is not None and refusals.caveat is not None:
        yield refusals.caveat
    merged = evaluation.merged
    if merged is not None and not merged.is_as_good:
        yield (
            f"its merged model answers {merged.asked - merged.same} of "
            f"{counted(merged.asked, 'question')} "
            "otherwise; use the adapter on the base in four bits, as its card says"
        )
