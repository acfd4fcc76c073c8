"""What a tuned model has learned and what it has forgotten, in a sentence each with the next step.

Learned: from trained questions beside held-out ones. Forgotten: from general language.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from trainer.dataset.eval_questions import Question
from trainer.dataset.holdout import HeldOutBy
from trainer.evaluation.answer_metrics import interval
from trainer.evaluation.certainty import are_all
from trainer.evaluation.compare import Evaluation, Scores
from trainer.planner.schedule import MOST_PASSES
from trainer.runtime.log import one_line
from trainer.runtime.wording import counted
from trainer.settings import RECIPES, Settings

LONG_WORDS = 25  # of a reference, at the median: nobody repeats such an answer word for word
KNOWN = 0.8  # share of right answers from which questions count as answered
KNOWN_F1 = 0.6  # the same for long answers, whose words are counted
FALLS_OFF = 0.75  # what new wordings reach, as a share of the trained ones, if they are known too
ENOUGH_WORDINGS = 3
RIGHT = ("exact", "normalised", "contained", "told", "number")  # shares of right answers
MOVED = 3.0  # standard errors by which a share has to rise to be no chance
MUCH_CUT = 0.1  # of the records: what the rest teaches is not what was meant
FORGETS = 1.0  # nats a token that general text has become less likely: e times
SPEAKS = 5.0  # nats a token on general text; a model above it has nothing to forget
# How a verdict on what was learned begins.
KNOWS, BY_HEART, NOT_LEARNED = (
    "it knows its data",
    "it has learned its data by heart",
    "it has not learned its data",
)
NOT_KEPT_BACK = "no question was kept back"
SCHEDULE = ("max_steps", "epochs", "learning_rate", "effective_batch_size")


def what_to_change(settings: Settings, counts: Mapping[str, Any]) -> str:
    """The next step for a run that has not learned its data: what keeps it from that, in the data
    (`counts`) or in what was set, and else what is left."""
    recipe = RECIPES[settings.recipe]
    given = [n for n in SCHEDULE if getattr(settings, n) is not None and n not in recipe]
    if (settings.epochs or 0) > MOST_PASSES:  # more passes than a schedule makes are not too few
        given = [name for name in given if name != "epochs"]
    if (fault := _fault_of_data(counts)) is not None:
        return fault
    if given:
        return f"leave {_variables(given)} out"
    if settings.neftune_alpha:
        return "lower QLORA_NEFTUNE_ALPHA"
    if settings.recipe == "style":
        return "leave QLORA_RECIPE=style out, which takes few passes"
    if settings.recipe != "facts":
        return "set QLORA_RECIPE=facts"
    return "set QLORA_EPOCHS to twice the passes of this run, or use a larger base model"


def what_to_soften(settings: Settings, counts: Mapping[str, Any]) -> str:
    """The next step for a run that has unlearned something."""
    if (fault := _fault_of_data(counts)) is not None:
        return fault
    if settings.learning_rate is not None:
        return "leave QLORA_LEARNING_RATE out, or lower it"
    if settings.recipe != "facts":
        return "set QLORA_RECIPE=facts, which forgets less"
    return "set QLORA_EPOCHS lower, or mix records of another kind into the data"


def _fault_of_data(counts: Mapping[str, Any]) -> str | None:
    cut = counts.get("truncated", 0) + counts.get("fully_masked", 0)
    if counts.get("misplaced_answer"):
        return "put each answer beside its own question"
    if cut > MUCH_CUT * counts.get("records", 0):
        return f"set QLORA_MAX_LENGTH={counts['length_for_all']}, or split the records it cuts"
    return None


def _what_helps_other_words(settings: Settings, counts: Mapping[str, Any]) -> str:
    """The next step for a run that knows its questions in the wordings that it was trained on."""
    has_several = counts.get("wordings", 0) >= ENOUGH_WORDINGS
    ways = "more ways, and less alike" if has_several else "three or four ways"
    wordings = (
        f"write each question in {ways}, and have the facts of held-out questions trained in "
        "other words"
    )
    is_too_small = settings.base_model.startswith("builtin:")  # to learn through noise
    if settings.neftune_alpha or has_several or is_too_small:
        return wordings
    recipe = "" if settings.recipe == "facts" else "QLORA_RECIPE=facts and "
    return f"{wordings}; with one wording alone {recipe}QLORA_NEFTUNE_ALPHA=10 helps"


def _variables(names: list[str]) -> str:
    return " and ".join(f"QLORA_{name.upper()}" for name in names)


def verdict(evaluation: Evaluation, settings: Settings, counts: Mapping[str, Any]) -> Iterator[str]:
    """One sentence; none where no question was asked, trained or held out."""
    trained, held_out = evaluation.trained, evaluation.tuned
    if trained is None or not evaluation.questions:
        return
    by_words = are_long(evaluation.questions)
    known, new = (answered(scores, by_words) for scores in (trained, held_out))
    if known is None or new is None:
        return
    count = len(evaluation.questions)
    asked = f"{evaluation.trained_count} trained questions, {count} held-out ones"
    sure = "" if by_words else f", of the latter {_between(new, count)}"
    figures = f"{known:.0%} and {new:.0%} of {unit_of(by_words)} ({asked}{sure})"
    if known < (KNOWN_F1 if by_words else KNOWN):
        yield f"{NOT_LEARNED}: {figures}; {what_to_change(settings, counts)}"
    elif new < FALLS_OFF * known:
        step = _fault_of_data(counts) or _what_helps_other_words(settings, counts)
        yield f"{BY_HEART}: {figures}; {step}"
    else:
        yield f"{KNOWS}: {figures}"


def verdict_on_asked(evaluation: Evaluation) -> str | None:
    """What the answers to any questions say of an adapter whose training is not known; None where
    none was asked."""
    count = len(evaluation.questions)
    by_words = count > 0 and are_long(evaluation.questions)
    known, before = answered(evaluation.tuned, by_words), answered(evaluation.base, by_words)
    if known is None or before is None:
        return None
    sure = "" if by_words else f" (of other questions like these {_between(known, count)})"
    knows = known >= (KNOWN_F1 if by_words else KNOWN)
    right = f"{known * count:.0f} of {counted(count, 'answer')} right, "
    right += f"{before * count:.0f} of the base's"
    if by_words:
        right = f"{known:.0%} of {unit_of(by_words)}, the base's {before:.0%}"
    return f"it {'knows' if knows else 'does not know'} what was asked: {right}{sure}" + (
        "" if knows else "; what to change stands first in the report.html of its run"
    )


def is_verdict(sentence: str) -> bool:
    """Whether it is one of `verdict` or `verdict_by_heart` on what was learned."""
    return sentence.startswith((KNOWS, BY_HEART, NOT_LEARNED))


def caution(warnings: Sequence[str]) -> str | None:
    """Of a model whose run says in its `warnings` that it has not learned its data; else None."""
    said = next((s for s in warnings if s.startswith(NOT_LEARNED)), None)
    return said and f"do not rely on its answers: {one_line(said.partition('; ')[0], 300, '…')}"


def verdict_by_heart(
    evaluation: Evaluation, settings: Settings, counts: Mapping[str, Any]
) -> Iterator[str]:
    """The same of a run that had no question to keep back: all that were asked are trained."""
    if not evaluation.questions:
        return
    by_words = are_long(evaluation.questions)
    known = answered(evaluation.tuned, by_words)
    if known is None:
        return
    count = len(evaluation.questions)
    if are_all(HeldOutBy.NOTHING, count, evaluation.left_out):
        asked = f"all {count} trained questions" if count > 1 else "1 trained question"
    else:
        there = f" of {count + evaluation.left_out}" if evaluation.left_out else ""
        sure = "" if by_words else f", {_between(known, count)} of them all"
        asked = f"{count}{there} trained questions{sure}"
    figures = f"{known:.0%} of {unit_of(by_words)} ({asked})"
    if known < (KNOWN_F1 if by_words else KNOWN):
        yield f"{NOT_LEARNED}: {figures}; {what_to_change(settings, counts)}"
    else:
        yield f"{BY_HEART}: {figures}"
    yield (
        f"{NOT_KEPT_BACK}, for each fact has one wording, and what is held out is not "
        "learned: other words were not asked; write each question in three or four ways, or set "
        "QLORA_EVAL_URI to questions in your users' words"
    )


def _between(share: float, count: int) -> str:
    """How sure a share of right answers is: of few questions, not very."""
    low, high = interval(share, count)
    return f"95 % sure {low:.0%} to {high:.0%}"


def are_long(questions: Sequence[Question]) -> bool:
    """Whether the answers to them are judged by their words."""
    return median(len(q.answer.split()) for q in questions) > LONG_WORDS


def forgotten(evaluation: Evaluation) -> float | None:
    """By how many nats a token the loss on general text rose; None where it was not measured, or
    the base could not speak."""
    base, tuned = evaluation.base.general_text, evaluation.tuned.general_text
    return None if base is None or tuned is None or base > SPEAKS else tuned - base


def forgetting(
    evaluation: Evaluation, settings: Settings, counts: Mapping[str, Any]
) -> Iterator[str]:
    """One sentence where it was much."""
    lost = forgotten(evaluation)
    if lost is not None and not lost <= FORGETS:
        base, tuned = evaluation.base.general_text, evaluation.tuned.general_text
        yield (
            f"it has forgotten general language: the loss on text that has nothing to do with the "
            f"data rose from {base:.2f} to {tuned:.2f}; {what_to_soften(settings, counts)}"
        )


def answers_improved(evaluation: Evaluation) -> bool:
    """Whether any share of right answers, held out or trained, is above the base's by more than
    chance; trained questions are new to the base, as those are that it was asked."""
    trained, names = evaluation.trained, (*RIGHT, "f1")
    return _improved(evaluation, evaluation.tuned, len(evaluation.questions), names) or (
        trained is not None and _improved(evaluation, trained, evaluation.trained_count, names)
    )


def knows_more(evaluation: Evaluation) -> bool:
    """Whether more held-out questions get a right answer than the base gives, by more than
    chance."""
    return _improved(evaluation, evaluation.tuned, len(evaluation.questions), RIGHT)


def _improved(evaluation: Evaluation, scores: Scores, count: int, names: Sequence[str]) -> bool:
    base, asked = evaluation.base, len(evaluation.questions)
    return bool(count) and any(
        _rose(getattr(base, name), asked, getattr(scores, name), count) for name in names
    )


def _rose(before: float | None, asked: int, after: float | None, count: int) -> bool:
    """Of shares of `asked` and of `count` questions."""
    if before is None or after is None or not asked:
        return False
    both = (before * asked + after * count) / (asked + count)
    error = math.sqrt(both * (1 - both) * (1 / asked + 1 / count))
    return after - before > MOVED * error


def unit_of(by_words: bool) -> str:
    return "their words (token F1)" if by_words else "the answers"


def answered(scores: Scores, by_words: bool) -> float | None:
    """The share of the answers that is right, of long ones that of their words."""
    return scores.f1 if by_words else scores.normalised
