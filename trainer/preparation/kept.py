"""What is kept of the drafts of all passages: records, coverage, and what was left out and why."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.corpus.fact_keys import question_key
from trainer.dataset.passages import Passage
from trainer.preparation.checks import NEAR_COPY_OF, UNNAMED, is_near_copy
from trainer.preparation.drafts import Draft
from trainer.preparation.pointing import PassageWords

WORDINGS = 5  # of one question that are kept
EXAMPLES = 5  # of each reason that are shown
# Of the statements that the model asks about in its own words, so many have a question that passes
# where it is right: 0.15 to 0.39 of data sheets. Of two libraries' documentation it was 0.02 and
# 0, and of what passed the checks of likelihood alone less than half was right.
TRUSTED = 0.1
GUESSED = "the model's own questions seldom fit these documents"
AMBIGUOUS, ENOUGH = "asked of several passages", f"more than {WORDINGS} wordings"


@dataclass(frozen=True)
class LeftOut:
    """A draft that is not kept, as an example of its reason."""

    question: str
    answer: str
    source: str


@dataclass(frozen=True)
class Unasked:
    """What nothing is asked about: (line, file) of what is in no statement, and files without a
    passage."""

    lines: Sequence[tuple[str, str]] = ()
    files: Sequence[str] = ()


@dataclass
class Kept:
    """Filled passage by passage; `records` and the rest are read when all are in."""

    by: str
    words: PassageWords | None = None
    """of all passages, where a question has to point to its own by them"""
    unasked: Unasked = Unasked()
    passages: int = 0
    statements: int = 0
    covered: int = 0
    """statements with a kept question"""
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[LeftOut]] = field(default_factory=lambda: defaultdict(list))
    uncovered: list[tuple[str, str]] = field(default_factory=list)
    """(statement, file) of some that no question is kept for"""
    _asked_freely: list[bool] = field(default_factory=list)
    """of each statement that the model asks about in its own words, whether one passed"""
    _chosen: list[tuple[Passage, int, list[Draft]]] = field(default_factory=list)
    _answered: set[tuple[str, str]] = field(default_factory=set)
    """(passage's key, statement) of those with a question"""
    _asked: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, passage: Passage, statements: Sequence[str], drafts: Sequence[Draft]) -> None:
        """`drafts` of one statement come best first. A statement that another passage makes too
        counts once, and what was kept for it there is not asked for again."""
        self.passages += 1
        known = {n for n, text in enumerate(statements) if self._is_known(text, passage)}
        self.statements += len(statements) - len(known)
        drafts = [draft for draft in drafts if draft.statement not in known]
        by_statement: dict[int, list[Draft]] = defaultdict(list)
        for draft in drafts:
            mine = by_statement[draft.statement]
            reason = draft.reason
            if reason is None and is_near_copy(draft.question, [d.question for d in mine]):
                reason = NEAR_COPY_OF
            if reason is None and not (draft.named or self._points(draft, statements, passage)):
                reason = UNNAMED
            if reason is None and len(mine) == WORDINGS:
                reason = ENOUGH
            if reason is not None:
                self._leave_out(reason, draft, passage)
                continue
            mine.append(draft)
            self._asked[question_key(draft.question)].add(draft.answer)
        guessed = [draft for draft in drafts if draft.guessed]
        fit = {draft.statement for draft in guessed if draft.reason is None}
        self._asked_freely += [number in fit for number in {d.statement for d in guessed}]
        for number, statement in enumerate(statements):
            if number in known:
                continue
            if by_statement[number]:
                self._answered.add((passage.key, statement))
                self._chosen.append((passage, number, by_statement[number]))
            else:
                self._miss(statement, passage)

    def _is_known(self, statement: str, passage: Passage) -> bool:
        if self.words is None:
            return False
        return any((k, statement) in self._answered for k in self.words.stating(statement, passage))

    def _points(self, draft: Draft, statements: Sequence[str], passage: Passage) -> bool:
        statement = statements[draft.statement]
        return self.words is None or self.words.point_to(draft.question, passage, statement)

    def records(self) -> list[dict[str, str]]:
        """One for each kept question, in the order of the documents; those that several passages
        answer differently are left out, since nobody could tell which is meant. Called once."""
        found = []
        passed = sum(self._asked_freely)
        trusts = passed >= TRUSTED * len(self._asked_freely)
        for passage, _, drafts in self._chosen:
            clear = []
            for draft in drafts:
                if draft.guessed and not trusts:
                    self._leave_out(GUESSED, draft, passage)
                elif len(self._asked[question_key(draft.question)]) > 1:
                    self._leave_out(AMBIGUOUS, draft, passage)
                else:
                    clear.append(self._record(draft, passage))
            if clear:
                self.covered += 1
                found += clear
            else:
                self._miss(drafts[0].answer, passage)
        return found

    def summary(self, records: int, refused: int = 0) -> dict[str, Any]:
        """JSON-ready: counts, coverage, and why drafts were left out, with examples; `refused` are
        the questions without an answer beside the `records`."""
        return {
            "made_by": self.by,
            "passages": self.passages,
            "statements": self.statements,
            "statements_with_a_question": self.covered,
            "coverage": self.covered / self.statements if self.statements else 0.0,
            "questions": records,
            "questions_refused": refused,
            "left_out": [
                {
                    "reason": reason,
                    "drafts": number,
                    "examples": [vars(example) for example in self.examples[reason]],
                }
                for reason, number in self.left_out.most_common()
            ],
            "without_a_question": [
                {"statement": text, "source": source} for text, source in self.uncovered
            ],
            "not_asked_about": {
                "files": list(self.unasked.files),
                "lines": len(self.unasked.lines),
                "examples": [
                    {"line": line, "source": source}
                    for line, source in self.unasked.lines[: 10 * EXAMPLES]
                ],
            },
        }

    def _record(self, draft: Draft, passage: Passage) -> dict[str, str]:
        return {
            "question": draft.question,
            "answer": draft.answer,
            "source": passage.source,
            "section": passage.section,
            "passage": passage.key,
            "made_by": self.by,
        }

    def _leave_out(self, reason: str, draft: Draft, passage: Passage) -> None:
        self.left_out[reason] += 1
        if len(some := self.examples[reason]) < EXAMPLES:
            some.append(LeftOut(draft.question, draft.answer, passage.source))

    def _miss(self, statement: str, passage: Passage) -> None:
        if len(self.uncovered) < 10 * EXAMPLES:
            self.uncovered.append((statement, passage.source))
