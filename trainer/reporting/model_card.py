"""The adapter's model card: `README.md` with the hub's metadata, curves and how to load it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.dataset.holdout import TRAINED_LOSS, HeldOutBy
from trainer.evaluation.compare import SCORES
from trainer.evaluation.samples import Sample
from trainer.reporting.data_section import held_out, read_from
from trainer.reporting.html_report import asked
from trainer.reporting.recorded_evaluation import RecordedEvaluation
from trainer.reporting.run_record import RunRecord
from trainer.reporting.summary import summary
from trainer.runtime.log import one_line
from trainer.runtime.templates import render

if TYPE_CHECKING:
    from trainer.models.base_model import Base

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
CURVES = "curves.png"
MOST_SAMPLES = 3
LONGEST_CARD_BYTES = 1 << 20
LONGEST_VALUE = 300  # of the base's licence, its name or its link
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320)  # it knows no others


def render_card(record: RunRecord, base: "Base", ends: Sequence[int] = ()) -> str:
    """The card in Markdown; `ends` are the tokens that end an answer."""
    of_base = base_card(base.folder)
    return render(
        TEMPLATE,
        record=record,
        summary=summary(record),
        base=base,
        metadata=_metadata(base, of_base),
        curves=CURVES,
        judge=_plain(judge.model) if (judge := record.evaluation.judge) else "",
        dtype=str(record.precision.dtype).removeprefix("torch."),
        ends=list(ends),
        scores=_scores(record.evaluation, record.data.held_out_by == HeldOutBy.NOTHING),
        samples=[_row(sample) for sample in record.samples[:MOST_SAMPLES]],
        read_from=_plain(read_from(record.data)),
        asked=asked(record.data),
        held_out=_plain(held_out(record.data)),
        served=base.name if base.is_from_hub else f"<folder of {base.name}>",
        vllm_rank=next((r for r in VLLM_RANKS if r >= record.settings.lora_r), VLLM_RANKS[-1]),
        licence=_plain(of_base.get("license_name") or of_base.get("license") or ""),
    )


def base_card(folder: Path) -> dict[str, Any]:
    """The metadata of the base model's own card, as far as it is short text; empty where it has
    none, or one that cannot be read: it is no reason to lose a run."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    try:
        found = metadata_load(card) if card.stat().st_size <= LONGEST_CARD_BYTES else None
    except Exception:  # yaml raises errors of its own, and whatever its conversions raise
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {n: v for n, v in known if isinstance(v, str) and len(v) <= LONGEST_VALUE}


def _metadata(base: "Base", of_base: Mapping[str, Any]) -> str:
    """Only what the hub accepts: its `base_model` is the id of a model there."""
    from huggingface_hub import ModelCardData

    on_hub: dict[str, Any] = {"base_model": base.name, "base_model_relation": "adapter"}
    licence = {n: of_base[n] for n in ("license", "license_name", "license_link") if n in of_base}
    data = ModelCardData(
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "qlora", *([f"base_model:adapter:{base.name}"] if base.is_from_hub else [])],
        **(on_hub if base.is_from_hub else {}),
        **licence,
    )
    return str(data.to_yaml())


def _scores(evaluation: RecordedEvaluation, is_trained: bool) -> list[tuple[str, str, str]]:
    """Label, base's and tuned value of each score that both have."""
    rows = []
    for score in SCORES:
        before, after = score.of(evaluation.base), score.of(evaluation.tuned)
        if before is not None and after is not None:
            label = TRAINED_LOSS if is_trained and score.key == "loss" else score.explained
            rows.append((label, format(before, score.format), format(after, score.format)))
    return rows


def _row(sample: Sample) -> list[str]:
    shown = (sample.question, sample.reference, sample.base_shown, sample.tuned_shown)
    return [_cell(text) for text in shown]


def _cell(text: str, most: int = 120) -> str:
    return _plain(one_line(text, most, ending="…"))


def _plain(text: str) -> str:
    """`text` of anybody's in Markdown: no element, link, picture, code or border of a cell."""
    no_elements = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`|\[\]*_#!])", r"\\\1", no_elements)
