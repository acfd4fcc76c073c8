"""A run on documents alone: questions are made of them first, and trained in their place. A run on
records: more wordings of their questions, trained beside them.

What was made lies beside the run, below `prepared/`, before anything is trained: whoever starts
the run again, on whatever machine, goes on with the same questions. Until then what the model wrote
is in the scratch folder, as of `prepare`.
"""

import gc
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.commands.prepare import OUTPUT, Prepared, prepare_questions
from trainer.dataset.domain import DOMAIN, Vocabulary
from trainer.dataset.eval_questions import Question
from trainer.dataset.inputs import are_documents
from trainer.dataset.passages import Passage, passages_of
from trainer.dataset.unanswerable import unanswerable
from trainer.distributed.workers import Workers
from trainer.errors import DataError, NothingKeptError, SettingsError
from trainer.evaluation.asking import ask_trained
from trainer.evaluation.compare import Evaluation
from trainer.evaluation.refusals import count_refusals
from trainer.evaluation.retrieval import PassageIndex, compare_with_passages
from trainer.models import base_model
from trainer.preflight import QUESTIONS_RECIPE, Job
from trainer.runs.layout import PREPARED
from trainer.runtime.json_records import json_object, read_object, well_formed
from trainer.runtime.log import one_line
from trainer.setting_checks import ALL_LINEAR
from trainer.settings import Settings
from trainer.storage import Fetched, fetch, fetch_verified, read_manifest
from trainer.storage.lease import owner_of, publish_alone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.training.loop import TrainingResult

log = logging.getLogger(__name__)

FEW = 0.25  # records a passage: of fewer most of what the documents say would not be taught
MOST = 0.5  # of the statements; where fewer have a question the report says so
OUTCOME = "outcome.json"
UNANSWERABLE = 32  # questions, asked of the tuned model alone


def ask_first(job: Job, run_id: str, scratch: Path, workers: Workers) -> Job:
    """`job` with questions in place of its documents, on all workers, or as it is: where none are
    to be made, or too few could be. Raises JobError."""
    if not job.asks_first:
        return job
    under = f"{run_id}/{PREPARED}"
    if workers.is_main:
        if read_manifest(job.output, under) is None:
            made = _make(job, scratch / "made")
            publish_alone(made, job.output, under, owner_of(scratch))
        if workers.size > 1:
            workers.set_flag(PREPARED)
    else:
        workers.wait_for_flag(PREPARED)
    folder = scratch / PREPARED
    fetch_verified(job.output, under, folder)
    return _with_questions(job, folder)


def _make(job: Job, folder: Path) -> Path:
    """What `prepare` makes of the documents, and what is to be said of it, in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    why = note = ""
    try:
        made = prepare_questions(replace(job.settings, output_uri=str(folder)))
    except NothingKeptError as error:
        why = str(error)
    else:
        why, note = _said_of(made, adds=job.settings.prepare == "wordings")
    _free_memory()
    folder.mkdir(parents=True, exist_ok=True)
    outcome = json.dumps({"trained": not why, "why": why, "note": note})
    (folder / OUTCOME).write_text(outcome, encoding="utf-8")
    return folder


def _said_of(made: Prepared, *, adds: bool) -> tuple[str, str]:
    """Why it is not to be trained, empty where it is; and what the report says where it is."""
    if adds:
        return "", ""
    if made.records < FEW * made.passages:
        return f"{made.records} questions for {made.passages} passages are too few", ""
    if made.covered >= MOST * made.statements:
        return "", ""
    return "", (
        f"{made.covered} of the {made.statements} statements of the documents have a question, and "
        "what the rest say was not trained: prepared/prepare.html shows them; QLORA_TEACHER_URL "
        "asks a model that follows instructions, QLORA_PREPARE=never trains the documents"
    )


def _free_memory() -> None:
    """What the model took that wrote the questions: it is loaded again to be trained."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _with_questions(job: Job, folder: Path) -> Job:
    with _made_by_prepare(folder):
        outcome = read_object(folder / OUTCOME)
        why, said = (one_line(outcome.get(name, "")) for name in ("why", "note"))
    adds = job.settings.prepare == "wordings"
    if why:
        note = (
            f"no wordings could be added, so that the data were trained as they stand: {why}"
            if adds
            else "no questions could be made of the documents, so that they were trained as they "
            f"stand, which teaches how they are written more than what they say: {why}"
        )
        log.warning("%s", note)
        return replace(job, made=folder, notes=(note,))
    files = fetch(str(folder / OUTPUT), folder, retry_minutes=0)
    _records_of(files[0], job.settings)  # found out before anything is trained
    data = job.inputs.data
    if adds and not are_documents(data):  # documents beside records stay what they are
        inputs = replace(job.inputs, data=[*data, *files])
    else:
        inputs = replace(job.inputs, data=files, documents=data)
    if said:
        log.warning("%s", said)
    notes = (said,) if said else ()
    return replace(job, settings=_for_facts(job), inputs=inputs, made=folder, notes=notes)


class _Record(NamedTuple):
    question: str
    answer: str
    section: str


def _records_of(file: Fetched, settings: Settings) -> list[_Record]:
    """What `prepare` wrote, by the names that the columns have. Raises DataError for anything
    else, which others may have put there."""
    asked, said = settings.question_column or "question", settings.answer_column or "answer"
    found = []
    with _made_by_prepare(file.path.parent):
        lines = file.path.read_text(encoding="utf-8").split("\n")
        for record in map(json_object, filter(None, lines)):
            words = record[asked], record[said], record.get("section", "")
            if not all(isinstance(word, str) for word in words):
                raise ValueError("what is no text")
            found.append(_Record(*words))
    return found


@contextmanager
def _made_by_prepare(folder: Path) -> Iterator[None]:
    try:
        with well_formed("questions"):
            yield
    except ValueError as error:
        raise DataError(
            f"{folder}: holds something else than questions that were made of these documents "
            f"({one_line(error, 200)}); remove the folder {PREPARED} of this run from its output, "
            "and they are made anew"
        ) from error


def _for_facts(job: Job) -> Settings:
    """By the recipe that teaches facts best, on layers that the base has."""
    settings = job.settings.with_recipe(QUESTIONS_RECIPE)
    try:
        base_model.check_settings(job.base, settings)
    except SettingsError:
        settings = replace(settings, target_modules=(ALL_LINEAR,))
    log.info("trained by QLORA_RECIPE=%s, but for what was set", settings.recipe)
    return settings


def publish_made(job: Job, run: Path) -> None:
    """What was made before it was trained lies in the folder of the run, and beside its adapter
    what the documents speak of: whoever brings that somewhere brings both."""
    if job.made is not None:
        shutil.copytree(job.made, run / PREPARED)
    if (domain := job.domain) is not None:  # is read anew each time
        (run / "adapter" / DOMAIN).write_text(domain.as_json(), encoding="utf-8")


def judge_by_documents(
    job: Job,
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    found: Evaluation,
    trained: "TrainingResult",
) -> Evaluation:
    """`found` with whether training was the right tool, and what is refused of questions that the
    documents do not answer and that were not trained; where questions were made of documents."""
    if not job.inputs.documents:
        return found
    passages = passages_of(job.settings, job.inputs.documents)
    how = job.asking(trained.seconds)
    unseen = _unanswerable(job, passages)
    with how.answerer(model, tokenizer) as answerer:
        replies = ask_trained(answerer, unseen, model.device.type, how)
    asked = [*found.questions, *unseen[: len(replies)]]
    answers = [*found.tuned.answers, *(reply.text for reply in replies)]
    refusals = count_refusals(asked, answers, job.settings.refusal)
    found = replace(found, refusals=refusals)
    if refusals is not None:
        log.info("%s", refusals.in_words)
    return compare_with_passages(model, tokenizer, found, PassageIndex(passages), how)


def _unanswerable(job: Job, passages: Sequence[Passage]) -> list[Question]:
    """Some that are not among the records; none where nothing is made to be refused."""
    settings = job.settings
    if not settings.refusal_share and job.domain is None:
        return []
    told = Vocabulary()
    for passage in passages:
        told.add(f"{passage.section} {passage.text}")
    (file,) = job.inputs.data
    records = _records_of(file, settings)
    known = {record.question.casefold() for record in records}
    answered = [(r.question, r.section) for r in records if r.answer != settings.refusal]
    made = unanswerable(answered, told, UNANSWERABLE + len(records), settings.seed + 1)
    new = (m.question for m in made if m.question.casefold() not in known)
    return [Question(question, settings.refusal) for question in islice(new, UNANSWERABLE)]
