"""`evaluate`: any adapter against its base, on any data."""

import json
import shlex
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.dataset.holdout import HELD_OUT_LOSS
from trainer.dataset.inputs import fetch_inputs
from trainer.dataset.passages import LEAST_PASSAGE_CHARS, passages_of
from trainer.dataset.pipeline import prepare_held_out
from trainer.errors import DataError, SettingsError
from trainer.evaluation.asking import Asking
from trainer.evaluation.compare import SCORES, Evaluation, compare
from trainer.evaluation.judge import judge
from trainer.evaluation.retrieval import PassageIndex, compare_with_passages, table
from trainer.evaluation.verdict import verdict_on_asked
from trainer.inference.chat_model import ChatModel, load_chat_model
from trainer.inference.reply import CUT
from trainer.options import PLACE
from trainer.reporting.recorded_evaluation import RecordedEvaluation
from trainer.runtime.log import one_line
from trainer.runtime.wording import counted, hanging, this_command
from trainer.settings import Settings
from trainer.tokenization.chat_template import ensure_chat_template
from trainer.uris import publishable_uri, uri_faults

MOST_SAMPLES = 10  # in text; as JSON all of them are given, whole
JUDGED_LOSS = "loss on this data"  # which may have been trained
WIDTH = 100
SHOWN = 84  # characters of an answer in text
FORMS = {
    "16bit": "tuned: the adapter on the base's own 16-bit weights, on which it was not trained",
    "merged": "tuned: the merged model, as `merge` writes it",
}


@dataclass(frozen=True)
class EvaluationResult:
    """What was compared with what, and how they did."""

    adapter: str
    data: str
    blocks: int
    evaluation: Evaluation
    form: str = "nf4"
    base_model: str | None = None
    """which was named beside the adapter"""

    def as_json(self) -> str:
        """One line, with every question and both answers."""
        record: dict[str, Any] = {
            "adapter": publishable_uri(self.adapter),
            "as": self.form,
            "data": publishable_uri(self.data),
            "blocks": self.blocks,
            **RecordedEvaluation.of(self.evaluation).to_json(),
            "samples": [asdict(s) for s in self.evaluation.samples(self._questions)],
        }
        return json.dumps(record)

    def as_text(self) -> str:
        """A table of scores, then answers side by side."""
        lines = [
            f"{counted(self._questions, 'question')} and "
            f"{counted(self.blocks, 'block')} of {self.data}",
            *([] if self.form == "nf4" else [FORMS[self.form]]),
            "",
            f"{'':20}{'base':>12}{'tuned':>12}   better is",
        ]
        for score in SCORES:
            label = JUDGED_LOSS if score.label == HELD_OUT_LOSS else score.label
            values = score.of(self.evaluation.base), score.of(self.evaluation.tuned)
            if values == (None, None):
                continue
            base, tuned = ("-" if v is None else format(v, score.format) for v in values)
            lines.append(f"{label:20}{base:>12}{tuned:>12}   {score.better}")
        if (refusals := self.evaluation.refusals) is not None:
            lines += ["", f"tuned {refusals.in_words}"]
        lines += self._with_passages()
        for sample in self.evaluation.samples(MOST_SAMPLES):
            lines += ["", sample.question]
            right = "tuned, right" if sample.tuned_is_right else "tuned"
            said = ("expected", sample.reference), ("base", sample.base_shown)
            for side, text in (*said, (right, sample.tuned_shown)):
                lines.append(f"  {side:12} {one_line(text, SHOWN, CUT)}")
        return "\n".join([*lines, *self._ending()])

    def _ending(self) -> list[str]:
        """What that says, and the next command."""
        said = verdict_on_asked(self.evaluation)
        lines = [] if said is None else ["", *hanging(said, WIDTH, "").splitlines()]
        if self.form == "nf4":
            place = publishable_uri(self.adapter) if "://" in self.adapter else self.adapter
            adapter = shlex.quote(place)
            base = f" --base-model {shlex.quote(self.base_model)}" if self.base_model else ""
            lines += ["", f"ask it: {this_command()} ask --adapter {adapter}{base}"]
        return lines

    def _with_passages(self) -> list[str]:
        """Whether training was the right tool: a row for each way to answer, at 95 %."""
        found, evaluation = self.evaluation.with_passages, self.evaluation
        if found is None:
            return []
        rows = table(evaluation.base, evaluation.tuned, self._questions, found)
        return ["", *(f"{who:24}" + "".join(f"{c:>20}" for c in cells) for who, *cells in rows)]

    @property
    def _questions(self) -> int:
        return len(self.evaluation.questions)


def evaluate_adapter(
    adapter: str,
    settings: Settings,
    base_model: str | None,
    form: str = "nf4",
    documents: str = "",
) -> EvaluationResult:
    """Compare as a run does at its end: the same blocks, questions and code. Raises JobError.

    `form` is what answers, as in `load_chat_model`. Where there are `documents`, both models are
    asked with passages of them in view too.
    """
    index = _index_of(documents, settings) if documents else None
    chat_model = load_chat_model(adapter, settings, base_model, form)
    tokenizer = chat_model.tokenizer
    ensure_chat_template(tokenizer)
    blocks, questions = prepare_held_out(settings, tokenizer)
    how = asking_as(form, chat_model, settings)
    compared = compare(chat_model.model, tokenizer, blocks, questions, how=how)
    if index is not None:
        compared = compare_with_passages(chat_model.model, tokenizer, compared, index, how)
    evaluation = judge(compared, settings)
    data = settings.eval_uri or settings.data_uri
    return EvaluationResult(adapter, data, len(blocks), evaluation, form, base_model)


def asking_as(form: str, model: ChatModel, settings: Settings) -> Asking:
    """As `ask` does; in another form as other servers do, which refuse nothing for its words."""
    domain = model.domain if form == "nf4" else None
    return Asking(engine=model.engine, refusal=settings.refusal, domain=domain)


def _index_of(documents: str, settings: Settings) -> PassageIndex:
    """Raises SettingsError for no place, DataError where there is no document."""
    documents = PLACE.parse(documents)
    if faults := list(uri_faults("--documents", documents)):
        raise SettingsError("; ".join(faults))
    only = replace(settings, data_uri=documents, eval_uri="")
    found = passages_of(only, fetch_inputs(only).data)
    if not found:
        raise DataError(
            f"{publishable_uri(documents)}: holds no document of {LEAST_PASSAGE_CHARS} characters "
            "or more; --documents takes those that answer the questions"
        )
    return PassageIndex(found)
