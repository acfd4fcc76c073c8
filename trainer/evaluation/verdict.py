"""What a tuned model has learned, in one sentence: from trained questions beside held-out ones."""

from collections.abc import Iterator
from statistics import median

from trainer.evaluation.compare import Evaluation, Scores

LONG_WORDS = 25  # of a reference, at the median: nobody repeats such an answer word for word
KNOWN = 0.8  # share of right answers from which questions count as answered
KNOWN_F1 = 0.6  # the same for long answers, whose words are counted
FALLS_OFF = 0.75  # what new wordings reach, as a share of the trained ones, if they are known too


def verdict(evaluation: Evaluation) -> Iterator[str]:
    """One sentence with the next step; none where no question was asked, trained or held out."""
    trained, held_out = evaluation.trained, evaluation.tuned
    if trained is None or not evaluation.questions:
        return
    by_words = median(len(q.answer.split()) for q in evaluation.questions) > LONG_WORDS
    known, new = (_share(scores, by_words) for scores in (trained, held_out))
    if known is None or new is None:
        return
    unit = "their words (token F1)" if by_words else "the answers"
    figures = f"{known:.0%} of {unit} for questions that were trained, {new:.0%} for held-out ones"
    if known < (KNOWN_F1 if by_words else KNOWN):
        yield (
            f"it has not learned its data: {figures}; leave QLORA_EPOCHS, QLORA_LEARNING_RATE and "
            "QLORA_EFFECTIVE_BATCH_SIZE at auto, or set QLORA_RECIPE=facts"
        )
    elif new < FALLS_OFF * known:
        yield (
            f"it has learned its data by heart: {figures}; add records that ask for each fact in "
            "other words (four wordings are enough), more passes do not help"
        )
    else:
        yield f"it knows its data: {figures}"


def _share(scores: Scores, by_words: bool) -> float | None:
    return scores.f1 if by_words else scores.normalised
