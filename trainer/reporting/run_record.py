"""`run.json`: what is known about a run when it has trained, for people and other programs.

The names of the fields are the keys on disk, in their order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from trainer.dataset.seen import Piece, SeenRecord
from trainer.errors import DataError
from trainer.evaluation.samples import Sample
from trainer.reporting.recorded_evaluation import RecordedEvaluation, known_of
from trainer.runs.layout import RECORD
from trainer.runtime.device import Precision


class _FromJson:
    """A part of the record that is read back by the names of its fields."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Keys that are not known are left out. Raises TypeError where one is missing."""
        return known_of(cls, record)


@dataclass(frozen=True)
class RecordedSettings(_FromJson):
    """The settings that report and model card name, and all of them as they were recorded."""

    data_uri: str
    eval_uri: str
    max_length: int
    scheduler: str
    seed: int
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Sequence[str]
    recorded: Mapping[str, Any] = field(repr=False)
    """by name, of every setting; this is what stands in `run.json`"""
    system_prompt: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return known_of(cls, {**record, "recorded": record})


@dataclass(frozen=True)
class RecordedBase(_FromJson):
    """The base model by its name on the hub or as given, and what identifies its content."""

    name: str
    revision: str


@dataclass(frozen=True)
class InputFile(_FromJson):
    """A file that was read; `size` in bytes, the digest in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DataCounts(_FromJson):
    """What was read, and what of it is trained.

    A kind of record that does not occur (text, completion, conversation) is None, and not on disk.
    """

    files: int
    text: int | None = None
    completion: int | None = None
    conversation: int | None = None
    duplicates: int = 0
    near_duplicates: int = 0
    skipped: int = 0
    skipped_first: Sequence[str] = ()
    assumed_first: Sequence[str] = ()
    records: int = 0
    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    trained_ends: int = 0
    truncated: int = 0
    fully_masked: int = 0
    length_for_most: int = 0
    """of a block, in tokens: what would hold nine in ten of the cut records"""
    length_for_all: int = 0
    held_out: int = 0
    held_out_by: str = ""
    """what that measures, see `HeldOutBy`; empty in records of before that was decided"""
    held_out_documents: int = 0
    held_out_first: Sequence[str] = ()
    evaluation_copies: int = 0
    padding_share: float = 0.0
    blocks: int = 0
    several_turns: bool = False
    """whether questions that follow others were trained, so that `ask` remembers what was said"""
    wordings: float = 0.0
    """trained questions for each answer, on average"""
    misplaced_answer: Sequence[str] = ()
    """a question and its answer, where answers stand in wrong rows"""
    told_by_documents: int = 0
    """held-out questions that trained documents answer, of `told_of`; see `told_by_documents`"""
    told_of: int = 0
    told_documents: int = 0
    told_first: Sequence[str] = field(default_factory=list)
    turns: int = 0
    system_turns: int = 0
    """conversations that are trained and have a system turn of their own"""
    framed_otherwise: int = 0
    """records in the frame of another chat template"""
    by_file_type: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """what files of each kind became, see `dataset.file_types`"""

    @property
    def cut_records(self) -> int:
        """Those that lost their end or all of their answer to QLORA_MAX_LENGTH."""
        return self.truncated + self.fully_masked

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        for kind in ("text", "completion", "conversation"):
            if record[kind] is None:
                del record[kind]
        return record


@dataclass(frozen=True)
class RecordedDevice(_FromJson):
    """The GPU by name and compute capability; None on a CPU."""

    name: str
    capability: Sequence[int] | None


@dataclass(frozen=True)
class MicroBatch(_FromJson):
    """How the steps were executed: blocks in a forward pass, the plan of our engine, and why."""

    blocks: int
    plan: Mapping[str, Any] | None
    reason: str
    peak_bytes: int = 0
    tokens_per_s: float = 0.0


@dataclass(frozen=True)
class RecordedSchedule(_FromJson):
    """Passes over the data, blocks a step, peak rate and warm-up as they were, and why."""

    epochs: float
    step_blocks: int
    learning_rate: float
    warmup_ratio: float
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class ParameterCounts(_FromJson):
    """Of the adapter, and of base and adapter together."""

    trainable: int
    total: int
    trainable_percent: float

    @classmethod
    def of(cls, trainable: int, total: int) -> "ParameterCounts":
        return cls(trainable, total, round(100 * trainable / total, 4))


@dataclass(frozen=True)
class TrainingFigures(_FromJson):
    """Of all starts of the run together; losses in nats a token, None where there is none."""

    steps: int
    seconds: float
    tokens_per_s: float
    vram_peak_gib: float | None = None
    loss: float | None = None
    best_held_out_loss: float | None = None
    best_held_out_step: int | None = None
    planned_steps: int | None = None
    """`steps` is less where it ended early"""
    kept_step: int | None = None
    """whose adapter this is, and why"""
    kept_because: str = ""
    held_out_blocks: int | None = None
    """by which the adapter was judged"""
    measured_blocks: int | None = None
    """those of them whose loss the rows of `metrics.jsonl` have"""


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`; `finished` is in seconds since the epoch."""

    run_id: str
    version: str
    finished: float
    settings: RecordedSettings
    base: RecordedBase
    inputs: Sequence[InputFile]
    data: DataCounts
    device: RecordedDevice
    precision: Precision
    schedule: RecordedSchedule
    micro_batch: MicroBatch
    parameters: ParameterCounts
    training: TrainingFigures
    evaluation: RecordedEvaluation
    samples: Sequence[Sample]
    warnings: Sequence[str]
    """what a reader should know before trusting the adapter"""
    rejected: Sequence[str]
    """why it was rejected; empty for an adapter that is published"""
    libraries: Mapping[str, str]
    seen: Sequence[SeenRecord]
    """some of what was trained, as the model saw it"""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RunRecord":
        """What `to_json` gave, also of another version: keys that are not known are left out.

        Raises DataError where one is missing without which there is no report.
        """
        try:
            return cls(
                run_id=record["run_id"],
                version=record["version"],
                finished=record["finished"],
                settings=RecordedSettings.from_json(record["settings"]),
                base=RecordedBase.from_json(record["base"]),
                inputs=[InputFile.from_json(file) for file in record["inputs"]],
                data=DataCounts.from_json(record["data"]),
                device=RecordedDevice.from_json(record["device"]),
                precision=known_of(Precision, record["precision"]),
                schedule=_schedule_of(record),
                micro_batch=MicroBatch.from_json(record["micro_batch"]),
                parameters=ParameterCounts.from_json(record["parameters"]),
                training=TrainingFigures.from_json(record["training"]),
                evaluation=RecordedEvaluation.from_json(record["evaluation"]),
                samples=[known_of(Sample, sample) for sample in record["samples"]],
                warnings=record["warnings"],
                rejected=record["rejected"],
                libraries=record["libraries"],
                seen=[_seen(shown) for shown in record.get("seen", ())],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{RECORD} is of another program or damaged: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: keys and their order as they have always been."""
        return {
            "run_id": self.run_id,
            "version": self.version,
            "finished": self.finished,
            "settings": dict(self.settings.recorded),
            "base": asdict(self.base),
            "inputs": [asdict(file) for file in self.inputs],
            "data": self.data.to_json(),
            "device": asdict(self.device),
            "precision": asdict(self.precision),
            "schedule": asdict(self.schedule) | {"reasons": list(self.schedule.reasons)},
            "micro_batch": asdict(self.micro_batch),
            "parameters": asdict(self.parameters),
            "training": asdict(self.training),
            "evaluation": self.evaluation.to_json(),
            "samples": [asdict(sample) for sample in self.samples],
            "warnings": list(self.warnings),
            "rejected": list(self.rejected),
            "libraries": dict(self.libraries),
            "seen": [asdict(shown) for shown in self.seen],
        }

    def as_text(self) -> str:
        """The file."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def _seen(record: Mapping[str, Any]) -> SeenRecord:
    pieces = [known_of(Piece, piece) for piece in record["pieces"]]
    return known_of(SeenRecord, {**record, "pieces": pieces})


def _schedule_of(record: Mapping[str, Any]) -> RecordedSchedule:
    """Before there was one, the settings held what it says."""
    settings = record["settings"]
    return RecordedSchedule.from_json(
        record.get("schedule")
        or {
            "epochs": settings["epochs"],
            "step_blocks": settings["effective_batch_size"],
            "learning_rate": settings["learning_rate"],
            "warmup_ratio": settings["warmup_ratio"],
        }
    )
