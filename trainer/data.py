"""The data side of a run: fetch, read, hold out, tokenise and pack."""

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trainer import blocks, corpus, evaluate
from trainer.checkpoints import only_process
from trainer.errors import DataError
from trainer.identity import digest, slug
from trainer.log import figures
from trainer.prompts import stop_ids
from trainer.settings import Settings
from trainer.storage import Fetched, fetch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_NAMED_SKIPS = 20


@dataclass(frozen=True)
class Inputs:
    """The files of a run, on local disk."""

    data: list[Fetched]
    evaluation: list[Fetched]

    def objects(self) -> list[dict[str, Any]]:
        """Name, size and digest of each file, JSON-ready."""
        return [
            {"name": f.name, "size": f.size, "sha256": f.sha256}
            for f in (*self.data, *self.evaluation)
        ]


@dataclass(frozen=True)
class Data:
    """What a run trains and is judged on, and how it was counted."""

    train: list[blocks.Block]
    held_out: list[blocks.Block]
    questions: list[evaluate.Question]
    counts: dict[str, Any]


def fetch_inputs(settings: Settings) -> Inputs:
    """Bring the data and, if they are separate, the evaluation data to local disk."""

    def bring(uri: str) -> list[Fetched]:
        into = folder / f"{slug(uri)}-{digest(uri)}"  # two buckets may use the same last name
        return fetch(uri, into, retry_minutes=settings.storage_retry_minutes)

    folder = settings.scratch_dir / "inputs"
    with only_process(folder):
        evaluation = bring(settings.eval_uri) if settings.eval_uri else []
        return Inputs(bring(settings.data_uri) if settings.data_uri else [], evaluation)


def prepare(settings: Settings, inputs: Inputs, tokenizer: "PreTrainedTokenizerBase") -> Data:
    """Files to blocks of tokens, with a held-out part. Raises DataError when nothing is left."""
    length = settings.max_length
    read = _read(settings, inputs.data)
    if inputs.evaluation:
        train, held_out = read.examples, _read(settings, inputs.evaluation).examples
    else:
        train, held_out = blocks.hold_out(read.examples)
    sequences, counts = blocks.encode(
        train, tokenizer, length, max_masked_share=settings.max_skipped_share
    )
    if not sequences:
        raise DataError("the data holds nothing to train on once tokenised; add text")
    judged, _ = blocks.encode(held_out, tokenizer, length, max_masked_share=1)
    packed = blocks.pack(sequences, length, tokenizer.pad_token_id)
    ends = blocks.trained_ends(packed, stop_ids(tokenizer))
    if not ends:
        raise DataError(
            f"every record is cut before its end at QLORA_MAX_LENGTH={length}, so that the model "
            "would never learn to stop; raise it until answers fit"
        )
    data = Data(
        train=packed,
        held_out=blocks.pack(judged, length, tokenizer.pad_token_id),
        questions=evaluate.questions_of(held_out),
        counts={
            "files": read.files,
            **read.kinds,
            "duplicates": read.duplicates,
            "near_duplicates": read.near_duplicates,
            "skipped": len(read.skipped),
            "skipped_first": [s.reason for s in read.skipped[:_NAMED_SKIPS]],
            "assumed_first": read.notices[:_NAMED_SKIPS],
            **asdict(counts.packed(packed)),
            "trained_ends": ends,
            "blocks": len(packed),
            "held_out": len(held_out),
        },
    )
    _log_data(read, data)
    return data


def prepare_held_out(
    settings: Settings, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[blocks.Block], list[evaluate.Question]]:
    """What a run with these settings is judged by: EVAL_URI, or what it holds out of DATA_URI."""
    inputs = fetch_inputs(settings)
    examples = _read(settings, inputs.evaluation or inputs.data).examples
    held_out = examples if inputs.evaluation else blocks.hold_out(examples)[1]
    judged, _ = blocks.encode(held_out, tokenizer, settings.max_length, max_masked_share=1)
    if not judged:
        raise DataError("the data holds nothing to judge by once tokenised; add text or records")
    packed = blocks.pack(judged, settings.max_length, tokenizer.pad_token_id)
    return packed, evaluate.questions_of(held_out)


def _log_data(read: corpus.Corpus, data: Data) -> None:
    for skipped in read.skipped[:_NAMED_SKIPS]:
        log.warning("skipped %s", skipped.reason)
    for notice in read.notices[:_NAMED_SKIPS]:
        log.warning("%s", notice)
    if read.duplicates or read.near_duplicates:
        log.info("left out %d copies and %d near copies", read.duplicates, read.near_duplicates)
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in read.kinds.items())
    log.info(
        "data: %s from %d files; %s tokens, %s of them trained, in %d blocks; %d held out",
        kinds,
        read.files,
        f"{data.counts['tokens']:,}",
        f"{data.counts['trained_tokens']:,}",
        len(data.train),
        data.counts["held_out"],
        extra=figures(**data.counts),
    )
    if set(read.kinds) == {"text"}:
        log.info(
            "the data is prose only: it teaches style and vocabulary; question/answer records "
            "teach answering"
        )


def _read(settings: Settings, files: list[Fetched]) -> corpus.Corpus:
    return corpus.read_corpus(
        (corpus.Source(f.name, f.path, f.size) for f in files),
        max_skipped_share=settings.max_skipped_share,
        columns=corpus.Columns(
            question=settings.question_column,
            answer=settings.answer_column,
            text=settings.text_column,
        ),
    )
