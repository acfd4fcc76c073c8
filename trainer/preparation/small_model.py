"""Questions from a model that only has to continue text: it is given beginnings and topics, and its
likelihoods decide which question goes with which sentence.

A model of 135M parameters does not follow a request for questions; it does continue a list of
sentences and questions, and finds the question of a sentence more likely behind that sentence than
behind the others of its passage (query likelihood, as Ponte and Croft 1998 rank documents).
"""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.dataset.passages import Passage
from trainer.inference.generate import Answerer
from trainer.preparation import checks, english, fit, forms
from trainer.preparation.drafts import Draft
from trainer.preparation.likelihood import log_likelihoods
from trainer.preparation.statements import Statement, statements_of
from trainer.runtime.log import figures

log = logging.getLogger(__name__)

QUESTION_TOKENS, TOPIC_TOKENS = 18, 5
_TOPIC_END = re.compile(
    r"[.,;:!?()\"]| (?:is|are|was|were|has|have|can|will|that|in|of|for|by|from|with|and|at)\b"
)


@dataclass(frozen=True)
class Group:
    """Wordings of one question, of which the first stands for all at `bar`."""

    questions: list[str]
    bar: fit.Bar
    named: bool = True
    """whether each names what it is about, whatever else the documents say"""


class SmallModel:
    """`model` writes the drafts; it may be any causal language model of transformers."""

    def __init__(self, model: Any, tokenizer: Any, *, engine: bool = True) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._answerer = Answerer(model, tokenizer, engine=engine, ends=_ends(tokenizer))
        self._tokens_made, self._began = 0, time.monotonic()

    def drafts(self, passages: Sequence[Passage]) -> list[list[Draft]]:
        """Of each passage its drafts, good and bad; of one statement the best come first."""
        told = [statements_of(passage) for passage in passages]
        beside = [passage.text for passage, some in zip(passages, told, strict=True) for _ in some]
        groups = iter(self._groups([one for some in told for one in some], beside))
        return [
            self._judged(passage, some, [next(groups) for _ in some])
            for passage, some in zip(passages, told, strict=True)
        ]

    def report(self) -> None:
        """Say what was generated, and how fast."""
        seconds = time.monotonic() - self._began
        log.info(
            "%d tokens generated in %.0f s, %.0f a second with what was judged meanwhile",
            self._tokens_made,
            seconds,
            self._tokens_made / max(seconds, 1e-9),
            extra=figures(generated_tokens=self._tokens_made, seconds=seconds),
        )

    # -- candidates -----------------------------------------------------------------------

    def _groups(self, statements: Sequence[Statement], beside: Sequence[str]) -> list[list[Group]]:
        """For each statement the questions that it might answer; `beside` is the text around it."""
        somebody = [checks.names_somebody(s.text, s.subject) for s in statements]
        begun = [
            english.beginnings(s.text, named) if s.subject else []
            for s, named in zip(statements, somebody, strict=True)
        ]
        prompts = [
            english.EXAMPLES + _asked(statement) + beginning
            for statement, some in zip(statements, begun, strict=True)
            for beginning in some
        ]
        ends = iter(self._continue(prompts, QUESTION_TOKENS))
        topics = self._topics(statements)
        found = []
        for s, some, own, named, text in zip(
            statements, begun, topics, somebody, beside, strict=True
        ):
            written = dict.fromkeys(_question(start + next(ends), s.subject) for start in some)
            groups = [Group([question], fit.FREE) for question in written]
            groups += _by_form(s, text)
            if s.subject:
                groups += _made(s, own, somebody=named)
            found.append(groups)
        return found

    def _topics(self, statements: Sequence[Statement]) -> list[str]:
        """What the model says that each statement tells of its subject, where it has one."""
        prompts = [
            english.TOPIC.format(
                subject=s.subject, statement=s.text, name=s.subject.removeprefix("the ")
            )
            for s in statements
            if s.subject
        ]
        written = iter(self._continue(prompts, TOPIC_TOKENS))
        own = [next(written) if s.subject else "" for s in statements]
        return [_TOPIC_END.split(text.strip())[0].strip() for text in own]

    def _continue(self, texts: Sequence[str], most: int) -> list[str]:
        if not texts:
            return []
        prompts = [self._ids(text) for text in texts]
        made = self._answerer.continuations(prompts, most)
        self._tokens_made += sum(map(len, made))
        written = self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return [text.split("\n")[0] for text in written]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text).input_ids)

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a text behind another one, and where each lies in it, a space in front."""
        encoded = self._tokenizer(f" {text}", add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded.input_ids), list(encoded.offset_mapping)

    # -- which of them go with their statement -----------------------------------------------

    def _judged(
        self, passage: Passage, told: Sequence[Statement], groups: Sequence[Sequence[Group]]
    ) -> list[Draft]:
        """All candidates of a passage; heads of groups first, the likeliest of them in front."""
        texts = [statement.text for statement in told]
        asked = [(number, group) for number, some in enumerate(groups) for group in some]
        verdicts = self._verdicts(told, asked)
        heads: list[Draft] = []
        rest: list[Draft] = []
        for at in sorted(range(len(asked)), key=lambda at: -verdicts[at][0]):
            (number, group), (_, unfit) = asked[at], verdicts[at]
            others = [*texts[:number], *texts[number + 1 :], passage.section]
            for question in group.questions:
                reason = checks.why_unusable(
                    question,
                    texts[number],
                    told[number].subject,
                    others,
                    by_form=group.bar is fit.FORM,
                )
                draft = Draft(
                    number,
                    question,
                    texts[number],
                    reason or unfit,
                    named=group.named,
                    guessed=group.bar is fit.FREE,
                )
                (heads if question is group.questions[0] else rest).append(draft)
        return [*heads, *rest]

    def _verdicts(
        self, told: Sequence[Statement], asked: Sequence[tuple[int, Group]]
    ) -> list[tuple[float, str | None]]:
        """Of the first question of each group: its mean log-likelihood behind its statement, and
        why it does not go with that."""
        if not asked:
            return []
        nothing = replace(told[0], text=english.NOTHING.format(subject=_about(told[0])))
        encoded = [self._tokens(group.questions[0]) for _, group in asked]
        ids = [tokens for tokens, _ in encoded]
        found = [
            log_likelihoods(self._model, self._ids(english.EXAMPLES + _asked(s)), ids)
            for s in (*told, nothing)
        ]
        verdicts = []
        for at, (number, group) in enumerate(asked):
            scored = fit.Scored(group.questions[0], [row[at] for row in found], encoded[at][1])
            mean = sum(scored.rows[number]) / max(1, len(scored.rows[number]))
            verdicts.append((mean, fit.why_not(scored, number, told[number], group.bar)))
        return verdicts


def _made(statement: Statement, own: str, *, somebody: bool) -> list[Group]:
    """Questions that need no model: after quantities, and after topics, of which one is the
    model's `own`."""
    text, subject = statement.text, statement.subject
    groups = [Group(some, fit.QUANTITY) for some in english.about_quantities(text, subject)]
    for topic in english.topics(text, own):
        if checks.is_topic(topic, subject):
            # who does it is asked of what the sentence is about, not of what it mentions
            who = somebody and topic == english.said_of(text) and english.is_done_by(text)
            groups.append(Group(english.about_topic(topic, text, subject, who), fit.TOPIC))
    return groups


def _by_form(statement: Statement, beside: str) -> list[Group]:
    """Questions that the sentence's form gives; about a subject that they do not name, it is put in
    front of them."""
    if statement.begins:  # of the sentence before it
        return []
    return [
        Group(
            [_naming(question, statement.subject) for question in form.questions],
            fit.FORM,
            form.named or bool(statement.subject),
        )
        for form in forms.questions(statement.text, beside, about=not statement.subject)
    ]


def _naming(question: str, subject: str) -> str:
    if not subject or checks.is_named(question, subject):
        return question
    return f"{subject[:1].upper()}{subject[1:]}: {question[:1].lower()}{question[1:]}"


def _about(statement: Statement) -> str:
    return statement.about or "it"


def _asked(statement: Statement) -> str:
    return english.ASKED.format(subject=_about(statement), statement=statement.text)


def _question(text: str, subject: str) -> str:
    """One question, which names its subject at its end where it named none."""
    question = " ".join(text.split()).partition("?")[0].strip().strip("\"'*")
    if subject and subject.removeprefix("the ").casefold() not in question.casefold():
        question = f"{question} of {subject}"
    return f"{question}?"


def _ends(tokenizer: Any) -> list[int]:
    """Tokens that end a line or a question."""
    texts = tokenizer.batch_decode([[number] for number in range(len(tokenizer))])
    found = {number for number, text in enumerate(texts) if "\n" in text or "?" in text}
    return sorted(found | ({tokenizer.eos_token_id} - {None}))
