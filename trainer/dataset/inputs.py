"""The files of a run, on local disk."""

from dataclasses import dataclass, field
from typing import Any

from trainer.corpus.columns import Columns
from trainer.corpus.formats import format_of
from trainer.corpus.leftovers import is_hidden, is_leftover
from trainer.corpus.reader import Reader, Source
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


def are_documents(files: list[Fetched]) -> bool:
    """Whether what is read of them is prose, by their names: tables hold what was meant as it is,
    be it a column of text."""
    names = [f.name for f in files if not is_leftover(f.name, f.path) and not is_hidden(f.name)]
    read = [form.is_prose for form in map(format_of, names) if form.is_accepted]
    return bool(read) and all(read)
