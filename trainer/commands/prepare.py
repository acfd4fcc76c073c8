"""`prepare`: documents become question/answer records, worded by the base model or by a teacher.

Passages are split into statements; a model drafts questions for each, and what can be checked of
them is. What the model gave is kept in the scratch folder: a later start goes on from there.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from trainer.chat_api import ChatApi
from trainer.corpus.examples import Example, Text, printable
from trainer.dataset.domain import DOMAIN, Domain, Vocabulary
from trainer.dataset.inputs import fetch_inputs, prose_of, reader_of
from trainer.dataset.passages import (
    LEAST_PASSAGE_CHARS,
    Passage,
    passages,
    passages_of_records,
)
from trainer.dataset.unanswerable import are_english, refusals
from trainer.errors import DataError, NothingKeptError
from trainer.models import load
from trainer.models.locate import locate_base
from trainer.monitoring.counting import counting, uncounted
from trainer.preparation import coverage_page, english
from trainer.preparation.drafts import METHOD, Draft, read_drafts
from trainer.preparation.journal import Journal
from trainer.preparation.kept import Kept, Unasked
from trainer.preparation.pointing import PassageWords
from trainer.preparation.small_model import SmallModel
from trainer.preparation.statements import left_over, statements_of
from trainer.preparation.teacher import Teacher
from trainer.runtime.device import choose_precision, find_device
from trainer.runtime.log import figures
from trainer.runtime.naming import digest
from trainer.runtime.wording import counted
from trainer.settings import Settings
from trainer.storage import Store, open_store
from trainer.storage.files import only_process

log = logging.getLogger(__name__)

OUTPUT, PAGE, SUMMARY = "questions.jsonl", "prepare.html", "prepare.json"
# Passages; what they gave is on disk before the next are asked about. A CPU takes minutes for one.
_AT_ONCE, _AT_ONCE_ON_CPU = 16, 2


@dataclass(frozen=True)
class Prepared:
    """What was published, of how much."""

    records: int
    passages: int
    statements: int
    covered: int
    """statements with a question"""


def prepare_questions(settings: Settings) -> Prepared:
    """Publish OUTPUT to OUTPUT_URI, and beside it what came of the documents, as PAGE and SUMMARY.
    Raises DataError, as NothingKeptError where nothing was kept."""
    output = open_store(settings.output_uri, retry_minutes=settings.storage_retry_minutes)
    output.probe()
    source = _source_of(settings)
    told = Vocabulary()
    read, silent = _read(settings, told)
    unasked = _unasked(read, silent)
    work = _Work.of(read)
    log.info("%d passages, %d statements", work.passages, work.statements, extra=vars(work))
    folder = settings.scratch_dir / "questions" / digest(METHOD + english.EXAMPLES + source.name)
    answers = {passage.key for passage in read if passage.answers}
    with only_process(folder):
        kept = Kept(source.name, PassageWords(read), unasked)
        source.begin(folder, read, work)
        with counting("asking about passages", work.passages) as add:
            for first in range(0, len(read), source.at_once):
                batch = read[first : first + source.at_once]
                with uncounted():  # answers are no passages
                    made = source.drafts(batch)
                add(len(batch))
                for passage, drafts in zip(batch, made, strict=True):
                    kept.add(passage, [s.text for s in statements_of(passage)], drafts)
        source.end()
        records = kept.records()
        _check(kept, records)
        of_documents = [record for record in records if record["passage"] not in answers]
        unanswered = refusals(of_documents, told, settings)
        log.info("%d questions that the documents do not answer", len(unanswered))
        published = [*records, *unanswered]
        lines = [json.dumps(_in_columns(record, settings)) + "\n" for record in published]
        summary = kept.summary(len(records), len(unanswered))
        texts = {OUTPUT: "".join(lines), PAGE: coverage_page.render_page(summary, published)}
        if settings.refuses and are_english([record["question"] for record in records]):
            texts[DOMAIN] = Domain(told, settings.refusal).as_json()
        _publish(output, folder, summary, texts)
    return Prepared(len(published), work.passages, kept.statements, kept.covered)


def _in_columns(record: dict[str, str], settings: Settings) -> dict[str, str]:
    """By the names under which the data's own records are read, where those are set."""
    names = {"question": settings.question_column, "answer": settings.answer_column}
    return {names.get(name) or name: value for name, value in record.items()}


def _read(settings: Settings, told: Vocabulary) -> tuple[list[Passage], list[str]]:
    """All passages of the documents, and of records that are to be asked in more wordings, and the
    documents that have none; `told` gets every word of them all. What was left out is said, and
    before anybody waits."""
    files = fetch_inputs(settings).data
    reader, names = reader_of(settings, files), [file.name for file in files]
    if settings.prepare == "wordings":
        examples = list(_words_into(told, reader))
        found = [*passages(examples, names), *passages_of_records(examples, names)]
    else:
        found = list(passages(_words_into(told, reader), names))
    reader.tally.check(settings.max_skipped_share)
    for reason in reader.tally.skipped:
        log.warning("skipped %s", reason)
    having = {passage.source for passage in found}
    return found, [file.name for file in prose_of(files) if file.name not in having]


def _unasked(read: Iterable[Passage], silent: Sequence[str]) -> Unasked:
    """What nothing is asked about, which is said."""
    lines = [(line, passage.source) for passage in read for line in left_over(passage)]
    said = []
    if silent:
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        named = ", ".join(map(printable, silent[:3])) + more
        said.append(f"{named}: no passage of {LEAST_PASSAGE_CHARS} characters of its own")
    if lines:
        said.append(
            f"{counted(len(lines), 'row, item or sentence', 'rows, items and sentences')} "
            "in no statement"
        )
    if said:
        log.warning("nothing is asked about %s; %s shows them", "; nor about ".join(said), PAGE)
    return Unasked(lines, silent)


def _words_into(
    told: Vocabulary, examples: Iterable[tuple[int, Example]]
) -> Iterator[tuple[int, Example]]:
    for file, example in examples:
        if isinstance(example, Text):
            told.add(example.text)
        yield file, example


@dataclass(frozen=True)
class _Work:
    """What there is to do."""

    passages: int
    statements: int
    characters: int
    """that are read: of each statement its passage"""

    @classmethod
    def of(cls, found: Iterable[Passage]) -> "_Work":
        counts = [(len(statements_of(passage)), len(passage.text)) for passage in found]
        return cls(len(counts), sum(n for n, _ in counts), sum(n * size for n, size in counts))


class _BaseModel:
    """Drafts of the base model, which is loaded for passages that no earlier start asked about."""

    @property
    def at_once(self) -> int:
        return _AT_ONCE_ON_CPU if find_device().kind == "cpu" else _AT_ONCE

    def __init__(self, settings: Settings) -> None:
        self._settings, self._base = settings, locate_base(settings)
        self._model: SmallModel | None = None
        revision = self._base.revision
        self.name = f"{self._base.name}@{revision}" if revision else self._base.name

    def begin(self, folder: Path, read: Sequence[Passage], _work: _Work) -> None:
        self._journal = Journal(folder / "drafts.jsonl")
        if known := sum(self._known(passage) is not None for passage in read):
            log.info("an earlier start asked about %s", counted(known, "passage"))

    def drafts(self, batch: Sequence[Passage]) -> list[list[Draft]]:
        known = {passage.key: self._known(passage) for passage in batch}
        new = [passage for passage in batch if known[passage.key] is None]
        if new:
            self._model = self._model or self._loaded()
            made = dict(zip((p.key for p in new), self._model.drafts(new), strict=True))
            self._journal.keep({key: [astuple(d) for d in some] for key, some in made.items()})
            known |= made
        return [known[passage.key] or [] for passage in batch]

    def _known(self, passage: Passage) -> list[Draft] | None:
        """What an earlier start made of it; None where that is not to be read."""
        try:
            return read_drafts(self._journal.get(passage.key))
        except ValueError:
            return None

    def end(self) -> None:
        if self._model is not None:
            self._model.report()

    def _loaded(self) -> SmallModel:
        from trainer.models.streamed_base import to_answer

        device = find_device()
        precision = choose_precision(self._settings.precision, device)
        tokenizer = self._base.tokenizer()
        frozen = to_answer(self._base, self._settings, device)
        model = load.load_base(self._base, self._settings, precision, device, frozen).eval()
        return SmallModel(model, tokenizer, engine=self._settings.engine != "stock")


class _TeacherByUrl:
    """Drafts of the model that QLORA_TEACHER_URL names."""

    at_once = _AT_ONCE

    def __init__(self, settings: Settings) -> None:
        minutes = settings.storage_retry_minutes
        url, model = settings.teacher_url, settings.teacher_model
        self._api = ChatApi.read("QLORA_TEACHER_URL", url, model, minutes)
        self.name = self._api.name

    def begin(self, folder: Path, _read: Sequence[Passage], work: _Work) -> None:
        self._teacher = Teacher(self._api, Journal(folder / "replies.jsonl"))
        self._teacher.announce(work.statements, work.characters)

    def drafts(self, batch: Sequence[Passage]) -> list[list[Draft]]:
        return self._teacher.drafts(batch)

    def end(self) -> None:
        self._teacher.report()


def _source_of(settings: Settings) -> _BaseModel | _TeacherByUrl:
    return _TeacherByUrl(settings) if settings.teacher_url else _BaseModel(settings)


def _check(kept: Kept, records: Sequence[object]) -> None:
    """Say what came of it; raises DataError where nothing did."""
    if not kept.passages:
        raise DataError(
            f"the data holds no document of {LEAST_PASSAGE_CHARS} characters or more to ask "
            "about; `prepare` needs documents, records can be trained as they are, or "
            "QLORA_PREPARE=wordings adds other wordings of their questions"
        )
    why = ", ".join(f"{reason}: {number}" for reason, number in kept.left_out.most_common())
    if not records and not why:
        raise NothingKeptError(
            f"{kept.by} found nothing to ask about in {counted(kept.statements, 'statement')}: a "
            "base model asks about what a heading or several records name; set QLORA_TEACHER_URL "
            "to a model that follows instructions, or write questions yourself, in several ways"
        )
    if not records:
        raise NothingKeptError(
            f"{kept.by} gave no usable question for {kept.statements} statements of "
            f"{kept.passages} passages ({why}); set QLORA_TEACHER_URL to a model "
            "that follows instructions, or QLORA_BASE_MODEL to a larger one"
        )
    log.info(
        "%d questions for %d of %d statements; statements without one: %d; drafts left out: %s",
        len(records),
        kept.covered,
        kept.statements,
        kept.statements - kept.covered,
        why or "none",
    )


def _publish(
    output: Store, folder: Path, summary: dict[str, Any], texts: Mapping[str, str]
) -> None:
    """Upload the `texts`, by name, and the summary."""
    for name, text in {**texts, SUMMARY: json.dumps(summary, indent=1) + "\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
        output.upload(folder / name, name)
    counts = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    log.info("published %s/%s", output.uri.rstrip("/"), OUTPUT, extra=figures(**counts))
