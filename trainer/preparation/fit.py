"""Whether a question goes with one sentence of a passage and with no other, by likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from trainer.preparation import checks
from trainer.preparation.statements import Statement

# Of a question that was made for the sentence, and of one that the model wrote freely:
SHARE, FREE_SHARE = 0.8, 0.95  # of the likelihood among all sentences
ABOVE_NOTHING, FREE_ABOVE_NOTHING = 2.0, 4.0  # nats more than behind one that says nothing
GAIN = 3.5  # nats that a word of a free question which the sentence does not have owes to it
FREE_MEAN = -0.8  # nats a token: what is less likely is clumsy, and often beside the point
UNLIKELY = "is not what the model would ask"
FOREIGN, ELSEWHERE = "has words that the sentence does not lead to", "fits another sentence as well"


@dataclass(frozen=True)
class Scored:
    """A question with the log-likelihoods of its tokens in nats, a row for each sentence of the
    passage and a last one behind a sentence that says nothing; `places` is where each token lies in
    the question with a space in front."""

    question: str
    rows: Sequence[Sequence[float]]
    places: Sequence[tuple[int, int]]


def why_not(scored: Scored, number: int, statement: Statement, *, is_free: bool) -> str | None:
    """Why a question does not go with `statement`, sentence `number` of its passage; None where
    nothing speaks against it."""
    *sums, nothing = [sum(row) for row in scored.rows]
    best = max(sums)
    share = exp(sums[number] - best) / sum(exp(value - best) for value in sums)
    above = sums[number] - nothing
    if is_free:
        if share < FREE_SHARE or above < FREE_ABOVE_NOTHING:
            return ELSEWHERE
        if sums[number] < FREE_MEAN * len(scored.places):
            return UNLIKELY
        return FOREIGN if min(_gains(scored, number, statement), default=GAIN) < GAIN else None
    return ELSEWHERE if share < SHARE or above < ABOVE_NOTHING else None


def _gains(scored: Scored, number: int, statement: Statement) -> list[float]:
    """Of each word that is not the statement's: nats that it owes to it, beyond what the other
    sentences give it on average."""
    said = {checks.stem(word) for word in checks.words_of(statement.text)}
    text, found = f" {scored.question}", []
    for word in checks.content_words(scored.question, statement.subject):
        if checks.stem(word) not in said:
            begins = text.find(word)
            ends = begins + len(word)
            tokens = [t for t, (a, b) in enumerate(scored.places) if a < ends and b > begins]
            each = [sum(row[t] for t in tokens) for row in scored.rows]
            mine = each.pop(number)
            found.append(mine - sum(each) / len(each))
    return found
