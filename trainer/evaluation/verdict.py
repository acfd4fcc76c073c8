"""What a tuned model has learned, in one sentence: from trained questions beside held-out ones."""

from collections.abc import Iterator, Sequence
from statistics import median

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.settings import RECIPES, Settings

LONG_WORDS = 25  # of a reference, at the median: nobody repeats such an answer word for word
KNOWN = 0.8  # share of right answers from which questions count as answered
KNOWN_F1 = 0.6  # the same for long answers, whose words are counted
FALLS_OFF = 0.75  # what new wordings reach, as a share of the trained ones, if they are known too


def what_to_change(settings: Settings) -> str:
    """The next step for a run that has not learned its data: what keeps it from that, if it was
    set, and else what is left."""
    recipe = RECIPES[settings.recipe]
    chosen = ("epochs", "learning_rate", "effective_batch_size")
    given = [n for n in chosen if getattr(settings, n) is not None and n not in recipe]
    if settings.max_steps is not None:
        return "leave QLORA_MAX_STEPS unset"
    if given:
        return f"leave {' and '.join(f'QLORA_{name.upper()}' for name in given)} at auto"
    if settings.neftune_alpha:
        return "lower QLORA_NEFTUNE_ALPHA"
    if settings.recipe == "style":
        return "leave QLORA_RECIPE=style out, which takes few passes"
    if settings.recipe != "facts":
        return "set QLORA_RECIPE=facts"
    return "use a larger base model, or a higher QLORA_LORA_R"


def _what_helps_other_words(settings: Settings) -> str:
    """The next step for a run that knows its questions in the wordings that it was trained on."""
    wordings = (
        "write each question in three or four ways, and have the facts of held-out questions "
        "trained in other words"
    )
    if settings.neftune_alpha or settings.base_model.startswith("builtin:"):
        return wordings  # the built-in model is too small to learn through noise
    recipe = "" if settings.recipe == "facts" else "QLORA_RECIPE=facts and "
    return f"{wordings}; with one wording alone {recipe}QLORA_NEFTUNE_ALPHA=10 helps"


def verdict(evaluation: Evaluation, settings: Settings) -> Iterator[str]:
    """One sentence; none where no question was asked, trained or held out.

    The next step in it is none that `settings` have taken.
    """
    trained, held_out = evaluation.trained, evaluation.tuned
    if trained is None or not evaluation.questions:
        return
    by_words = are_long(evaluation.questions)
    known, new = (answered(scores, by_words) for scores in (trained, held_out))
    if known is None or new is None:
        return
    asked = (
        f"{evaluation.trained_count} trained questions, {len(evaluation.questions)} held-out ones"
    )
    figures = f"{known:.0%} and {new:.0%} of {unit_of(by_words)} ({asked})"
    if known < (KNOWN_F1 if by_words else KNOWN):
        yield f"it has not learned its data: {figures}; {what_to_change(settings)}"
    elif new < FALLS_OFF * known:
        yield f"it has learned its data by heart: {figures}; {_what_helps_other_words(settings)}"
    else:
        yield f"it knows its data: {figures}"


def verdict_by_heart(evaluation: Evaluation, settings: Settings) -> Iterator[str]:
    """The same of a run that had no question to keep back: all that were asked are trained."""
    if not evaluation.questions:
        return
    by_words = are_long(evaluation.questions)
    known = answered(evaluation.tuned, by_words)
    if known is None:
        return
    asked = f"{len(evaluation.questions)} trained questions"
    figures = f"{known:.0%} of {unit_of(by_words)} ({asked})"
    if known < (KNOWN_F1 if by_words else KNOWN):
        yield f"it has not learned its data: {figures}; {what_to_change(settings)}"
    else:
        yield f"it has learned its data by heart: {figures}"
    yield (
        "no question was kept back, for each fact has one wording, and what is held out is not "
        "learned: other words were not asked; write each question in three or four ways, or set "
        "QLORA_EVAL_URI to questions in your users' words"
    )


def are_long(questions: Sequence[Question]) -> bool:
    """Whether the answers to them are judged by their words."""
    return median(len(q.answer.split()) for q in questions) > LONG_WORDS


def unit_of(by_words: bool) -> str:
    return "their words (token F1)" if by_words else "the answers"


def answered(scores: Scores, by_words: bool) -> float | None:
    """The share of the answers that is right, of long ones that of their words."""
    return scores.f1 if by_words else scores.normalised
