"""Questions from a model behind a URL, which follows requests: two a statement, many at once.

What came back whole is on disk before anything else happens, so that a start after a failure asks
for the rest alone. Passages go to the server that the settings name, and nowhere else.
"""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trainer.chat_api import ChatApi, Completion
from trainer.corpus.examples import Message
from trainer.dataset.passages import Passage
from trainer.errors import DataError
from trainer.monitoring.counting import counting
from trainer.preparation import checks
from trainer.preparation.drafts import Draft
from trainer.preparation.journal import Journal
from trainer.preparation.statements import Statement, statements_of
from trainer.runtime.log import figures
from trainer.runtime.naming import digest
from trainer.storage.parallel import in_parallel

log = logging.getLogger(__name__)

WORDINGS = 5
CHARS_PER_TOKEN = 4  # of English, as servers count it; for an outlook only
MOST_TOKENS = 512  # of a reply: five questions and an answer take 200
MOST_THOUGHT_TOKENS = 8192  # of one behind a thought
REFUSED, CUT, NO_PAIR = "the teacher refused", "the teacher's answer was cut off", "no question"
DISAGREES = "answered otherwise when asked again"
INVENTED = "the answer has numbers or names that the passage does not have"

WRITE = """\
{passage}

One sentence of this text{section} is: "{statement}"

Write {wordings} questions that this sentence answers, each on a line of its own behind "Q:" and \
in other words than the rest. {naming} No question may hold its answer. Then write one answer \
that goes with all of them, one whole sentence with the facts as the text has them, behind "A:"."""
NAMING = "Each names {subject}, since whoever reads the question does not see the text."
NAMELESS = "Each names what it is about, since whoever reads the question does not see the text."
ASK = """\
{passage}

Answer each of these questions from the text above alone, on a line of its own behind its number, \
in one short sentence; write "not said" where the text does not say it.

{questions}"""

_QUESTION = re.compile(r"[\W\d]*(?:q|question)\s*\d*\W{0,3}[:.]\W{0,3}(\S.*)", re.IGNORECASE)
_ANSWER = re.compile(r"[\W\d]*(?:a|answer)\s*\d*\W{0,3}[:.]\W{0,3}(\S.*)", re.IGNORECASE)
_NUMBERED = re.compile(r"\W*(\d{1,2})\W{1,3}(\S.*)")
_THOUGHTS = re.compile(r"(?s)^.*</think>")


@dataclass
class Spent:
    """What was asked and given, as the server counts it: tokens are 0 where it does not say."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Teacher:
    """Drafts from the model of `api`; its whole replies are kept in `journal`."""

    def __init__(self, api: ChatApi, journal: Journal) -> None:
        self._api, self._journal = api, journal
        self._most_tokens = MOST_TOKENS
        self.spent = Spent()
        self.failures: list[str] = []

    def announce(self, statements: int, characters: int) -> None:
        """Say what it will take, before anything is sent."""
        known = f"; {len(self._journal)} replies are known already" if len(self._journal) else ""
        log.info(
            "%s gets at most %d requests, about %d tokens to read%s",
            self._api.name,
            2 * statements,
            (2 * characters + statements * len(WRITE + ASK)) // CHARS_PER_TOKEN,
            known,
        )

    def drafts(self, passages: Sequence[Passage]) -> list[list[Draft]]:
        """Of each passage its drafts, good and bad. Raises NotAllowedError, SettingsError or
        UnreachableError where asking on is in vain."""
        told = [(p, n, s) for p in passages for n, s in enumerate(statements_of(p))]
        written = self._replies([_to_write(p, s) for p, _, s in told])
        found: dict[str, list[Draft]] = {passage.key: [] for passage in passages}
        sound: list[tuple[Passage, list[Draft]]] = []
        for (passage, number, statement), reply in zip(told, written, strict=True):
            drafts = _drafts(passage, number, statement, reply)
            good = [draft for draft in drafts if draft.reason is None]
            found[passage.key] += [draft for draft in drafts if draft.reason]
            if good:
                sound.append((passage, good))
        again = self._replies([_to_ask(passage, drafts) for passage, drafts in sound])
        for (passage, drafts), reply in zip(sound, again, strict=True):
            found[passage.key] += _confirmed(drafts, reply)
        return [found[passage.key] for passage in passages]

    def _replies(self, requests: Sequence[str]) -> list[Completion | DataError]:
        """Of each request, in order; what was whole is not asked for again."""
        new = [text for text in dict.fromkeys(requests) if self._known(text) is None]
        began = time.monotonic()
        with counting("asking the teacher", len(new)) as add:

            def ask(text: str) -> Completion | DataError:
                most = self._most_tokens
                reply = self._asked(text, most)
                if _is_thought(reply) and most < MOST_THOUGHT_TOKENS:
                    self._most_tokens = MOST_THOUGHT_TOKENS
                    reply = self._asked(text, MOST_THOUGHT_TOKENS)
                add(1)
                return reply

            given = dict(zip(new, in_parallel(ask, new), strict=True))
        self.spent.seconds += time.monotonic() - began
        return [
            given[text] if text in given else Completion(self._known(text) or "", whole=True)
            for text in requests
        ]

    def _asked(self, text: str, most_tokens: int) -> Completion | DataError:
        reply = self._api.reply([Message("user", text)], most_tokens)
        if isinstance(reply, Completion):
            self._note(text, reply)
        return reply

    def _known(self, text: str) -> str | None:
        reply = self._journal.get(digest(text))
        return reply if isinstance(reply, str) else None

    def _note(self, text: str, reply: Completion) -> None:
        self.spent.requests += 1
        self.spent.prompt_tokens += reply.prompt_tokens
        self.spent.completion_tokens += reply.completion_tokens
        if reply.whole:
            self._journal.keep({digest(text): reply.text})

    def report(self) -> None:
        """Say what it took."""
        spent = self.spent
        log.info(
            "%s gave %d replies in %.0f s: %d tokens read, %d written",
            self._api.name,
            spent.requests,
            spent.seconds,
            spent.prompt_tokens,
            spent.completion_tokens,
            extra=figures(**vars(spent)),
        )


def _is_thought(reply: Completion | DataError) -> bool:
    """Whether it was cut off before anything was said but a thought, which some servers send
    elsewhere."""
    return (
        isinstance(reply, Completion)
        and not reply.whole
        and (not reply.text or (reply.text.startswith("<think>") and "</think>" not in reply.text))
    )


def _to_write(passage: Passage, statement: Statement) -> str:
    naming = NAMING.format(subject=statement.subject) if statement.subject else NAMELESS
    return WRITE.format(
        passage=passage.text,
        section=f" (from {passage.section})" if passage.section else "",
        statement=statement.text,
        wordings=WORDINGS,
        naming=naming,
    )


def _to_ask(passage: Passage, drafts: Sequence[Draft]) -> str:
    lines = [f"{number}. {draft.question}" for number, draft in enumerate(drafts, start=1)]
    about = f"{passage.section}\n\n" if passage.section else ""
    return ASK.format(passage=about + passage.text, questions="\n".join(lines))


def _drafts(
    passage: Passage, number: int, statement: Statement, reply: Completion | DataError
) -> list[Draft]:
    """The questions of a reply with its answer, each with what forbids it."""
    if isinstance(reply, DataError) or not reply.whole:
        reason = REFUSED if isinstance(reply, DataError) else CUT
        return [Draft(number, "", statement.text, reason)]
    questions, answer = pairs_of(reply.text)
    if not questions or not answer:
        return [Draft(number, "", statement.text, NO_PAIR)]
    if passage.answers:  # one for all wordings, the data's own among them
        answer = statement.text
    invented = not _stands_in(answer, passage)
    others = [other.text for other in statements_of(passage) if other != statement]
    return [
        Draft(
            number,
            question,
            answer,
            INVENTED
            if invented
            else checks.why_unusable(
                question, statement.text, statement.subject, [*others, passage.section]
            ),
            named=bool(statement.subject),
        )
        for question in questions
    ]


def pairs_of(text: str) -> tuple[list[str], str]:
    """The questions of a reply and its last answer, in the forms that models write."""
    lines = [line.strip() for line in _THOUGHTS.sub("", text).splitlines()]
    questions = [_bare(m[1]) for line in lines if (m := _QUESTION.fullmatch(line))]
    answers = [_bare(m[1]) for line in lines if (m := _ANSWER.fullmatch(line))]
    return list(dict.fromkeys(questions)), answers[-1] if answers else ""


def _bare(text: str) -> str:
    return text.strip().strip('*"\u201c\u201d').strip()


def _stands_in(answer: str, passage: Passage) -> bool:
    known = {word.casefold() for word in checks.words_of(f"{passage.section} {passage.text}")}
    return checks.names_and_numbers(answer) <= known


def _confirmed(drafts: Sequence[Draft], reply: Completion | DataError) -> Iterator[Draft]:
    """`drafts`, of which those are good that the teacher answers again as it did."""
    again: dict[int, str] = {}
    if isinstance(reply, Completion) and reply.whole:
        for line in _THOUGHTS.sub("", reply.text).splitlines():
            if found := _NUMBERED.fullmatch(line.strip()):
                again.setdefault(int(found[1]), _bare(found[2]))
    for number, draft in enumerate(drafts, start=1):
        agrees = checks.same_answer(again.get(number, ""), draft.answer, draft.question)
        reason = None if agrees else DISAGREES
        yield replace(draft, reason=reason)
