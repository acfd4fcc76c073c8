"""What a person reads of a run: the page, its curves, the model card, the remarks."""

import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Score
from trainer.models.base_model import Base
from trainer.reporting.caveats import remarks
from trainer.reporting.charts import Chart, Line, Scale, png, smoothed, svg
from trainer.reporting.html_report import charts, render_report
from trainer.reporting.model_card import render_card

HOSTILE = "<script>alert(1)</script>|\n"
NOTHING = {"loss": None, "perplexity": None, "exact": None, "f1": None, "stopped": None}
RECORD: dict[str, Any] = {
    "run_id": "run",
    "version": "0",
    "finished": 0.0,
    "warnings": [HOSTILE],
    "rejected": [],
    "settings": {
        "data_uri": "data",
        "eval_uri": "",
        "max_length": 64,
        "target_modules": ["q_proj"],
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "effective_batch_size": 16,
        "learning_rate": 2e-4,
        "scheduler": "cosine",
        "seed": 1,
    },
    "base": {"name": "owner/base", "revision": "main"},
    "inputs": [{"name": HOSTILE, "size": 3, "sha256": "0" * 64}],
    "data": {
        "files": 1,
        "conversation": 9,
        "duplicates": 0,
        "near_duplicates": 0,
        "skipped": 1,
        "skipped_first": [HOSTILE],
        "assumed_first": [],
        "records": 9,
        "truncated": 0,
        "fully_masked": 0,
        "padding_share": 0.25,
        "trained_ends": 9,
        "tokens": 90,
        "trained_tokens": 50,
        "blocks": 2,
        "held_out": 1,
    },
    "device": {"name": "CPU", "capability": None},
    "precision": {"name": "fp32", "reason": "a CPU"},
    "micro_batch": {"blocks": 1, "reason": "a CPU"},
    "parameters": {"trainable": 8, "total": 100, "trainable_percent": 8.0},
    "training": {
        "steps": 2,
        "seconds": 90.0,
        "tokens_per_s": 10.0,
        "vram_peak_gib": None,
        "loss": 1.0,
        "best_held_out_loss": 1.0,
        "best_held_out_step": 2,
    },
    "evaluation": {
        "questions": 1,
        "base": {"loss": 2.0, "perplexity": 7.4, "exact": 0.0, "f1": 0.1, "stopped": 0.5},
        "tuned": {"loss": 1.0, "perplexity": 2.7, "exact": 1.0, "f1": 1.0, "stopped": 1.0},
    },
    "samples": [{"question": HOSTILE, "reference": "b", "base": "c", "tuned": "b"}],
    "libraries": {"torch": "2"},
}
ROWS = [
    {"step": n, "loss": 3 - n, "learning_rate": 1e-3, "seconds": n, "tokens_per_s": 50.0,
     "memory_gib": 1.0, "held_out_loss": 3.5 - n}
    for n in (1, 2)
]  # fmt: skip


def base(tmp_path: Path, card: str = "", is_from_hub: bool = True) -> Base:
    (tmp_path / "README.md").write_text(card)
    return Base(tmp_path, "owner/base", "main", is_from_hub=is_from_hub)


def metadata(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = render_report(RECORD, ROWS)
    assert "<script" not in page
    assert not re.search(r"https?:|url\(|@import|src=|href=", page)
    assert page.count("<svg") == 4
    for words in ("2.000 → 1.000", "0% → 100%", "10% → 100%", "accepted", "1 min 30 s"):
        assert words in page


def test_a_rejected_run_says_so_with_the_reason_first() -> None:
    page = render_report(RECORD | {"rejected": ["its held-out loss is worse"]}, ROWS)
    assert page.index("Its held-out loss is worse.") < page.index("Worth knowing")
    assert "accepted" not in page


def test_a_page_of_a_run_without_questions_steps_or_finite_losses_is_still_a_page() -> None:
    empty = RECORD | {
        "samples": [],
        "evaluation": {"questions": 0, "base": NOTHING, "tuned": NOTHING},
    }
    for rows in ([], [{"step": 1, "loss": None, "learning_rate": 1e-3}]):
        page = render_report(empty, rows)
        assert "too few steps" in page
        assert "no held-out question" in page


def test_an_exact_answer_is_marked() -> None:
    page = render_report(RECORD, ROWS)
    assert page.count("✓") == 1
    assert page.index("before") < page.index("✓")


def test_a_page_of_many_files_names_some_and_a_long_run_stays_small() -> None:
    files = [{"name": f"{n}.txt", "size": n, "sha256": "0"} for n in range(5000)]
    rows = [ROWS[0] | {"step": n, "seconds": n} for n in range(1, 20_000)]
    page = render_report(RECORD | {"inputs": files}, rows)
    assert "4,900 more" in page
    assert len(page) < 100_000


def test_a_gap_or_a_number_that_is_none_breaks_no_curve() -> None:
    points = [(1, 1.0), (2, math.nan), (3, 3.0), (4, math.inf)]
    drawn = svg(Chart("Loss", [Line("", points)]))
    assert "nan" not in drawn
    assert len(re.findall(r'class="main"[^>]*points="([^"]*)"', drawn)[0].split()) == 2
    assert svg(Chart("Loss", [Line("", points[:1])])).startswith("<p>")
    assert smoothed(points, keep=0) == [(1, 1.0), (3, 3.0)]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 5.2], (0, 2, 4)),
        ([0, 2e-4], (0, 5e-5, 1e-4, 1.5e-4, 2e-4)),
        ([0.27, 0.31], (0.27, 0.28, 0.29, 0.3, 0.31)),
        ([7, 7], (4, 6, 8, 10)),
        ([0, 0], (-0.4, -0.2, 0, 0.2, 0.4)),
    ],
)
def test_ticks_are_round_numbers_within_the_values(
    values: list[float], ticks: tuple[float, ...]
) -> None:
    scale = Scale.around(values, 0, 100, 5)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.at(scale.low), scale.at(scale.high)) == (0, 100)


def test_the_picture_shows_the_same_curves_and_is_small() -> None:
    data = png(charts(RECORD, ROWS))
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.size == (1920, 1000)
    assert {(37, 99, 235), (217, 72, 15)} <= {
        color for _, color in picture.getcolors(1 << 24) or []
    }
    assert len(data) < 100_000
    assert png([])  # a run of one step has a picture too


def test_the_card_has_what_the_hub_reads(tmp_path: Path) -> None:
    of_base = "---\nlicense: llama2\nlicense_link: https://example.org/terms\n---\n# Base\n"
    card = render_card(RECORD, base(tmp_path, of_base))
    assert metadata(card) == {
        "base_model": "owner/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "llama2",
        "license_link": "https://example.org/terms",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "qlora", "base_model:adapter:owner/base"],
    }
    assert "| exact answers | 0% | 100% |" in card
    assert "The licence of the base model, llama2, applies." in card
    assert "![" in card
    assert "](curves.png)" in card


def test_a_card_of_a_base_from_a_folder_names_no_model_on_the_hub(tmp_path: Path) -> None:
    card = render_card(RECORD, base(tmp_path, "no metadata", is_from_hub=False))
    assert "base_model" not in metadata(card)
    assert "license" not in metadata(card)
    assert "it is not recorded here" in card
    assert '"<folder of owner/base>", quantization_config' in card


def test_the_loading_code_of_the_card_is_python_and_a_hostile_answer_stays_in_its_cell(
    tmp_path: Path,
) -> None:
    card = render_card(RECORD, base(tmp_path))
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    compile(code[1], "card", "exec")
    assert "| <script>alert(1)</script>\\| | b | c | b |" in card


def score(**values: float) -> Score:
    return Score(**(dict.fromkeys(["end_loss", *NOTHING]) | values))  # type: ignore[arg-type]


def held_out(*losses: float) -> Any:
    history = [{"step": n, "held_out_loss": loss} for n, loss in enumerate(losses, 1)]
    best = min(history, key=lambda row: row["held_out_loss"], default=None)
    return SimpleNamespace(history=history, best=best)


SOUND = {"skipped": 0, "truncated": 0, "fully_masked": 0, "records": 100}
ASKED = tuple(Question(str(n), "a") for n in range(40))


@pytest.mark.parametrize(
    ("data", "trained", "questions", "base_score", "tuned", "words"),
    [
        ({}, held_out(3, 2, 1, 1), 40, score(loss=3), score(loss=1), None),
        ({"skipped": 2}, held_out(), 40, score(loss=3), score(loss=1), "2 files or records"),
        ({"truncated": 9}, held_out(), 40, score(loss=3), score(loss=1), "9 of 100 records"),
        ({}, held_out(), 0, score(), score(), "nothing could be held out"),
        ({}, held_out(), 0, score(loss=2), score(loss=1), "no question was held out"),
        ({}, held_out(), 5, score(loss=2), score(loss=1), "one of them is 20%"),
        ({}, held_out(3, 1, 2, 2), 40, score(loss=3), score(loss=2), "was best at step 2 (1.0000)"),
        ({}, held_out(4, 3, 2, 1), 40, score(loss=4), score(loss=1), "more epochs may do better"),
        ({}, held_out(), 40, score(loss=4), score(loss=1, stopped=0.5), "50% of the answers did"),
        ({}, held_out(), 40, score(loss=4, f1=0.5), score(loss=1, f1=0.25), "fell from 50% to 25%"),
    ],
)
def test_what_a_reader_should_know_is_said(
    data: dict[str, int], trained: Any, questions: int, base_score: Score, tuned: Score,
    words: str | None,
) -> None:  # fmt: skip
    found = remarks(SOUND | data, trained, Evaluation(base_score, tuned, ASKED[:questions]))
    assert len(found) == (0 if words is None else 1)
    assert words is None or words in found[0]


def test_a_record_without_numbers_is_json() -> None:
    json.dumps(score(loss=float("nan"), exact=1.0).figures(), allow_nan=False)
