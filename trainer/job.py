"""The story of one run: settings in, published adapter out."""

import hashlib
import json
import logging
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import artifacts, blocks, corpus, device, evaluate, model, prompts, selftest
from trainer.checkpoints import Checkpoints, only_process
from trainer.errors import DataError, SettingsError
from trainer.log import figures
from trainer.publication import move_latest, owner_of, publish_run
from trainer.settings import Settings
from trainer.storage import Fetched, Store, fetch, open_store, read_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"
WEIGHTS = "adapter/adapter_model.safetensors"
_NAMED_SKIPS = 20
SLOW_ON_A_CPU = 10**9  # parameters


@dataclass(frozen=True)
class Inputs:
    """The files of a run, on local disk."""

    data: list[Fetched]
    evaluation: list[Fetched]


@dataclass(frozen=True)
class Data:
    """What a run trains and is judged on, and how it was counted."""

    train: list[blocks.Block]
    held_out: list[blocks.Block]
    questions: list[evaluate.Question]
    counts: dict[str, Any]


def run(settings: Settings) -> str:
    """Train, evaluate and publish; returns the run's id. Raises JobError.

    A run that is already finished is left as it is.
    """
    selftest.check_memory()  # before torch, whose import may already be too much
    log.info("fine-tuning %s", settings.base_model, extra=figures(settings=settings.to_dict()))
    output = open_store(settings.output_uri, retry_minutes=settings.storage_retry_minutes)
    output.probe()
    base = model.locate(settings)
    model.check(base, settings)
    found = device.find_device()
    selftest.check(found)
    precision = device.choose_precision(settings.precision, found)
    inputs = _fetch(settings)
    fingerprint = _fingerprint(settings, base, precision, inputs)
    run_id = _claim(output, settings, fingerprint)
    # Not by the run id alone: a user may give the same one to another run elsewhere.
    scratch = settings.scratch_dir / "runs" / f"{run_id}-{_digest(fingerprint)}"
    with only_process(scratch):
        if read_manifest(output, run_id) is None:
            _train_and_publish(
                run_id, settings, output, base, found, precision, inputs, scratch, fingerprint
            )
        else:
            log.info("run %s is already finished; nothing to do", run_id)
    return run_id


def _train_and_publish(
    run_id: str,
    settings: Settings,
    output: Store,
    base: model.Base,
    found: device.Device,
    precision: device.Precision,
    inputs: Inputs,
    scratch: Path,
    fingerprint: str,
) -> None:
    from trainer.train import train

    warnings: list[str] = []
    tokenizer = base.tokenizer()
    if (reason := prompts.ensure_chat_template(tokenizer)) is not None:
        log.info("%s", reason)
    data = _prepare(settings, inputs, tokenizer)
    trainable = model.trainable_parameters(base, settings)
    shape = base.shape()
    micro_batch = device.choose_micro_batch(
        found,
        shape,
        trainable=trainable,
        effective=settings.effective_batch_size,
        block_tokens=settings.max_length,
    )
    log.info("%s: %s (%s)", found.name, precision.name, precision.reason)
    log.info(
        "adapter of %s parameters, %.3f %% of %s",
        f"{trainable:,}",
        100 * trainable / shape.parameters,
        f"{shape.parameters:,}",
    )
    if found.kind == "cpu" and shape.parameters > SLOW_ON_A_CPU:
        warnings.append("there is no GPU: a model of this size trains for days on a CPU")
        log.warning("%s", warnings[-1])
    log.info("micro-batch of %d blocks (%s)", micro_batch.blocks, micro_batch.reason)
    quantised = model.load(base, settings, precision, found)
    tuned = model.attach_adapter(quantised, settings)
    trained = train(
        tuned,
        tokenizer,
        data.train,
        settings,
        precision=precision,
        device=found,
        micro_batch=micro_batch,
        checkpoints=Checkpoints(
            scratch / "checkpoints", output, f"{run_id}/checkpoints", fingerprint
        ),
    )
    artifacts.check_adapter(tuned)
    evaluation = evaluate.compare(tuned, tokenizer, data.held_out, data.questions)
    _log_evaluation(evaluation)
    described = artifacts.Run(
        run_id=run_id,
        settings=settings,
        base=base,
        inputs=_objects(inputs),
        data=data.counts,
        device=found,
        precision=precision,
        micro_batch=micro_batch,
        trainable_parameters=trainable,
        total_parameters=shape.parameters,
        trained=trained,
        evaluation=evaluation,
        warnings=warnings,
    )
    shutil.rmtree(scratch / "run", ignore_errors=True)
    folder = artifacts.write_artifacts(tuned, tokenizer, described, scratch / "run")
    publish_run(folder, output, run_id, owner=owner_of(scratch), weights=WEIGHTS)
    move_latest(output, run_id, finished=time.time())
    log.info("published %s%s", output.uri, run_id, extra=figures(run_id=run_id))


def _fetch(settings: Settings) -> Inputs:
    minutes, into = settings.storage_retry_minutes, settings.scratch_dir / "inputs"
    data = fetch(settings.data_uri, into / _slug(settings.data_uri), retry_minutes=minutes)
    if not settings.eval_uri:
        return Inputs(data, [])
    evaluation = fetch(settings.eval_uri, into / _slug(settings.eval_uri), retry_minutes=minutes)
    return Inputs(data, evaluation)


def _prepare(settings: Settings, inputs: Inputs, tokenizer: "PreTrainedTokenizerBase") -> Data:
    """Files to blocks of tokens, with a held-out part."""
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
    data = Data(
        train=packed,
        held_out=blocks.pack(judged, length, tokenizer.pad_token_id),
        questions=evaluate.questions_of(held_out),
        counts={
            "files": read.files,
            **read.kinds,
            "duplicates": read.duplicates,
            "skipped": len(read.skipped),
            "skipped_first": [s.reason for s in read.skipped[:_NAMED_SKIPS]],
            **asdict(counts.packed(packed)),
            "blocks": len(packed),
            "held_out": len(held_out),
        },
    )
    _log_data(read, data)
    return data


def _log_data(read: corpus.Corpus, data: Data) -> None:
    for skipped in read.skipped[:_NAMED_SKIPS]:
        log.warning("skipped %s", skipped.reason)
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
        (corpus.Source(f.name, f.path) for f in files),
        max_skipped_share=settings.max_skipped_share,
    )


def _fingerprint(
    settings: Settings, base: model.Base, precision: device.Precision, inputs: Inputs
) -> str:
    """Everything that two runs must share to end in the same weights, as JSON."""
    record = {
        "settings": settings.changing_the_result() | {"precision": precision.name},
        "data": {f.name: f.sha256 for f in inputs.data},
        "evaluation": {f.name: f.sha256 for f in inputs.evaluation},
        "base": {"name": base.name, "revision": base.revision},
        "libraries": artifacts.library_versions(),
    }
    return json.dumps(record, indent=1, sort_keys=True)


def _digest(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:12]


def _claim(output: Store, settings: Settings, fingerprint: str) -> str:
    """The id of the run with this fingerprint, recorded in `output` by the first who asks.

    A run id of the user's that belongs to another run already is refused with RESUME=must and
    gets a suffix otherwise: two runs never mix.
    """
    digest = _digest(fingerprint)
    run_id = settings.run_id or f"{_slug(settings.base_model)}-{digest}"
    other = _recorded(output, run_id, fingerprint)
    if other is None:
        return run_id
    fields = ", ".join(_differing(_parsed(other), json.loads(fingerprint)))
    if settings.resume == "must":
        raise SettingsError(
            f"QLORA_RESUME=must: run {run_id} was made with other {fields}; "
            "restore them or choose another QLORA_RUN_ID"
        )
    mine = f"{run_id}-{digest}"
    log.warning("run %s was made with other %s; this is run %s", run_id, fields, mine)
    _recorded(output, mine, fingerprint)
    return mine


def _recorded(output: Store, run_id: str, text: str) -> str | None:
    """Record the fingerprint of `run_id`; the one that was there, if it is another."""
    name = f"{run_id}/{FINGERPRINT}"
    if output.write(name, text.encode(), only_if_absent=True):
        return None
    there = (output.read(name) or b"{}").decode()
    return None if there == text else there


def _parsed(text: str) -> dict[str, Any]:
    """A stored fingerprint; a damaged one differs in everything."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The dotted names under which two nested dictionaries differ."""
    names = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names += [f"{name}.{below}" for below in _differing(a, b)]
        elif a != b:
            names.append(name)
    return names


def _objects(inputs: Inputs) -> list[dict[str, Any]]:
    return [
        {"name": f.name, "size": f.size, "sha256": f.sha256}
        for f in (*inputs.data, *inputs.evaluation)
    ]


def _log_evaluation(evaluation: evaluate.Evaluation) -> None:
    base, tuned = evaluation.base, evaluation.tuned
    if base.loss is not None and tuned.loss is not None:
        log.info(
            "held-out loss %.4f before, %.4f after",
            base.loss,
            tuned.loss,
            extra=figures(before=base.loss, after=tuned.loss),
        )
    if base.exact is not None and tuned.exact is not None:
        log.info(
            "exact answers on %d held-out questions: %.0f %% before, %.0f %% after",
            len(evaluation.questions),
            100 * base.exact,
            100 * tuned.exact,
            extra=figures(before=base.exact, after=tuned.exact),
        )


def _slug(text: str) -> str:
    """`text` as a name for a folder or a run."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.")
    return name or "run"
