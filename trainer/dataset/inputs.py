"""The files of a run, on local disk."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trainer.corpus.columns import Columns
from trainer.corpus.formats import format_of
from trainer.corpus.leftovers import is_hidden, is_leftover
from trainer.corpus.reader import Reader, Source
from trainer.corpus.records import MADE_BY
from trainer.dataset.domain import DOMAIN, Domain
from trainer.errors import DataError
from trainer.runtime.json_records import json_object, well_formed
from trainer.runtime.naming import digest, slug
from trainer.settings import Settings
from trainer.storage import Fetched, fetch
from trainer.storage.files import only_process


@dataclass(frozen=True)
class Inputs:
    """The files of a run, on local disk: `data` were made of `documents`, where there are some."""

    data: list[Fetched]
    evaluation: list[Fetched]
    documents: list[Fetched] = field(default_factory=list)

    def objects(self) -> list[dict[str, Any]]:
        """Name, size and digest of each file, JSON-ready."""
        return [
            {"name": f.name, "size": f.size, "sha256": f.sha256}
            for f in (*self.documents, *self.data, *self.evaluation)
        ]


def fetch_inputs(settings: Settings) -> Inputs:
    """Bring the data and, if they are separate, the evaluation data to local disk."""

    def fetched(uri: str) -> list[Fetched]:
        into = folder / f"{slug(uri)}-{digest(uri)}"  # two buckets may use the same last name
        return fetch(uri, into, retry_minutes=settings.storage_retry_minutes)

    folder = settings.scratch_dir / "inputs"
    with only_process(folder):
        evaluation = fetched(settings.eval_uri) if settings.eval_uri else []
        return Inputs(fetched(settings.data_uri) if settings.data_uri else [], evaluation)


def reader_of(settings: Settings, files: list[Fetched]) -> Reader:
    """Reads `files`, whose columns are those of the settings."""
    columns = Columns(
        question=settings.question_column,
        answer=settings.answer_column,
        text=settings.text_column,
    )
    sources = (Source(f.name, f.path, f.size) for f in files)
    return Reader(sources, columns=columns)


def domain_beside(files: list[Fetched]) -> Domain | None:
    """What the documents speak of that `prepare` made these records of, and the records that were
    added to them by hand; None where other files are trained too, of which it knows nothing.

    Raises DataError for a file that is damaged.
    """
    known = [f.path.parent for f in files if f.path.name == DOMAIN]
    trained = [f.path for f in files if _is_read(f)]
    if not known or [path.parent for path in trained] != known or trained[0].suffix != ".jsonl":
        return None
    try:
        domain = Domain.read(known[0])
    except ValueError as error:
        raise DataError(
            f"{DOMAIN} is damaged ({error}); make it again with `prepare`, or remove it to train "
            "an adapter that knows no such words"
        ) from error
    if domain is None:
        return None
    for line in trained[0].read_bytes().splitlines():
        with suppress(ValueError), well_formed("a record"):  # a broken one is told by the reader
            if MADE_BY not in (record := json_object(line)):
                domain.told.add(" ".join(map(str, record.values())))
    return domain


def _is_read(file: Fetched) -> bool:
    is_meant = not is_leftover(file.name, file.path) and not is_hidden(file.name)
    return is_meant and format_of(file.name).is_accepted


def are_documents(files: list[Fetched]) -> bool:
    """Whether what is read of them is prose, by their names: tables hold what was meant as it is,
    be it a column of text."""
    read = [f for f in files if _is_read(f)]
    return bool(read) and read == prose_of(files)


def prose_of(files: list[Fetched]) -> list[Fetched]:
    """Those that are read as prose, by their names."""
    return [f for f in files if _is_read(f) and format_of(f.name).is_prose]
