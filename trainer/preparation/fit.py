"""Whether a question goes with one sentence of a passage and with no other, by likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf

from trainer.dataset.domain import stem
from trainer.preparation import checks
from trainer.preparation.statements import Statement

UNLIKELY = "is not what the model would ask"
FOREIGN, ELSEWHERE = "has words that the sentence does not lead to", "fits another sentence as well"


@dataclass(frozen=True)
class Bar:
    """What the likelihoods of a question have to reach."""

    share: float
    """of the likelihood among all sentences of the passage"""
    above_nothing: float
    """nats more than behind a sentence that says nothing"""
    mean: float = -inf
    """nats a token: what is less likely is clumsy, and often beside the point"""
    gain: float = -inf
    """nats that each word which the sentence does not have owes to it"""


# Set by looking at what SmolLM2-135M writes about invented machines.
FREE = Bar(0.95, 4.0, mean=-0.8, gain=3.5)  # what the model wrote as it liked
FORM = Bar(0.8, 2.0)  # given by the form of the sentence
QUANTITY = Bar(0.8, 2.0)  # made for a sentence whose form shows what is asked
TOPIC = Bar(0.8, 2.0, gain=3.5)  # made about what the sentence tells, by its form or the model


@dataclass(frozen=True)
class Scored:
    """A question with the log-likelihoods of its tokens in nats, a row for each sentence of the
    passage and a last one behind a sentence that says nothing; `places` is where each token lies in
    the question with a space in front."""

    question: str
    rows: Sequence[Sequence[float]]
    places: Sequence[tuple[int, int]]


def why_not(scored: Scored, number: int, statement: Statement, bar: Bar) -> str | None:
    """Why a question does not go with `statement`, sentence `number` of its passage; None where
    nothing speaks against it."""
    *sums, nothing = [sum(row) for row in scored.rows]
    best = max(sums)
    share = exp(sums[number] - best) / sum(exp(value - best) for value in sums)
    if share < bar.share or sums[number] - nothing < bar.above_nothing:
        return ELSEWHERE
    if sums[number] < bar.mean * len(scored.places):
        return UNLIKELY
    return FOREIGN if min(_gains(scored, number, statement), default=inf) < bar.gain else None


def _gains(scored: Scored, number: int, statement: Statement) -> list[float]:
    """Of each word that is not the statement's: nats that it owes to it, beyond what the other
    sentences give it on average."""
    said = {stem(word) for word in checks.words_of(statement.text)}
    text, found = f" {scored.question}", []
    for word in checks.content_words(scored.question, statement.subject):
        if stem(word) not in said:
            begins = text.find(word)
            ends = begins + len(word)
            tokens = [t for t, (a, b) in enumerate(scored.places) if a < ends and b > begins]
            each = [sum(row[t] for t in tokens) for row in scored.rows]
            mine = each.pop(number)
            found.append(mine - sum(each) / len(each))
    return found
