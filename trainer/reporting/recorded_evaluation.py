"""What `run.json` and `evaluate` write of an evaluation; the fields' names are the keys."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from trainer.evaluation.certainty import sure_of
from trainer.evaluation.compare import Evaluation, Judgement, Scores, WithPassages
from trainer.evaluation.merged_answers import MergedAnswers
from trainer.evaluation.refusals import Refusals

Class = TypeVar("Class")


@dataclass(frozen=True)
class RecordedEvaluation:
    """How many questions were asked, and how the base and the tuned model did."""

    questions: int
    base: Scores
    tuned: Scores
    trained: Scores | None = None
    """the tuned model's on questions that it was trained on"""
    merged: MergedAnswers | None = None
    judge: Judgement | None = None
    left_out: int = 0
    """questions that were not asked, for want of time"""
    with_passages: WithPassages | None = None
    """both models' with passages of the documents in view"""
    refusals: Refusals | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "RecordedEvaluation":
        base, tuned = (
            Scores.from_json(scores.figures()) for scores in (evaluation.base, evaluation.tuned)
        )
        return cls(
            len(evaluation.questions),
            base,
            tuned,
            evaluation.trained,
            evaluation.merged,
            evaluation.judgement,
            evaluation.left_out,
            evaluation.with_passages,
            evaluation.refusals,
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RecordedEvaluation":
        base, tuned = (Scores.from_json(record.get(side, {})) for side in ("base", "tuned"))
        trained, merged, judge, passages, refusals = (
            record.get(part) for part in ("trained", "merged", "judge", "with_passages", "refusals")
        )
        return cls(
            record.get("questions", 0),
            base,
            tuned,
            Scores.from_json(trained) if trained else None,
            known_of(MergedAnswers, merged) if merged else None,
            known_of(Judgement, judge) if judge else None,
            record.get("left_out", 0),
            _with_passages_of(passages) if passages else None,
            known_of(Refusals, refusals) if refusals else None,
        )

    def sure(self, by: str) -> str:
        """How sure the tuned model's share of exact answers is, in words; empty without. `by` is
        what was held out."""
        if self.tuned.exact is None or not self.questions:
            return ""
        return sure_of(self.tuned.exact, self.questions, by, self.left_out)

    def to_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "base": self.base.figures(),
            "tuned": self.tuned.figures(),
            "trained": self.trained and self.trained.figures(),
            "merged": self.merged and asdict(self.merged),
            "judge": self.judge and asdict(self.judge),
            "left_out": self.left_out,
            "with_passages": self.with_passages and _with_passages_json(self.with_passages),
            "refusals": self.refusals and asdict(self.refusals),
        }


def _with_passages_of(record: Mapping[str, Any]) -> WithPassages:
    sides = {side: Scores.from_json(record.get(side, {})) for side in ("base", "tuned")}
    return known_of(WithPassages, {**record, **sides})


def _with_passages_json(found: WithPassages) -> dict[str, Any]:
    sides = {"base": found.base.figures(), "tuned": found.tuned.figures()}
    return {"passages": found.passages, "questions": found.questions} | sides


def known_of(cls: type[Class], record: Mapping[str, Any]) -> Class:
    """A `cls` of those keys of `record` that it has a field for."""
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in record.items() if name in names})
