"""The adapter's card: what the hub reads of it, and what a person does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.run_records import RECORD, record

from trainer.dataset.holdout import HeldOutBy
from trainer.models.base_model import Base
from trainer.reporting.model_card import base_card, render_card
from trainer.reporting.run_record import RunRecord


def base(tmp_path: Path, card: str = "", is_from_hub: bool = True) -> Base:
    (tmp_path / "README.md").write_text(card)
    return Base(tmp_path, "owner/base", "main", is_from_hub=is_from_hub)


def metadata(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_the_card_has_what_the_hub_reads(tmp_path: Path) -> None:
    of_base = "---\nlicense: llama2\nlicense_link: https://example.org/terms\n---\n# Base\n"
    card = render_card(record(), base(tmp_path, of_base))
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


def test_of_a_run_that_holds_nothing_out_the_loss_is_that_of_trained_data(tmp_path: Path) -> None:
    data = RECORD["data"] | {"held_out_by": str(HeldOutBy.NOTHING)}
    card = render_card(RunRecord.from_json(RECORD | {"data": data}), base(tmp_path))
    assert "| loss on trained data | " in card and "loss on held-out data" not in card
    assert "| loss on held-out data | " in render_card(record(), base(tmp_path))


def test_a_card_of_a_base_from_a_folder_names_no_model_on_the_hub(tmp_path: Path) -> None:
    card = render_card(record(), base(tmp_path, "no metadata", is_from_hub=False))
    assert "base_model" not in metadata(card)
    assert "license" not in metadata(card)
    assert "it is not recorded here" in card
    assert '"<folder of owner/base>",\n    quantization_config=nf4,\n' in card


def test_the_loading_code_of_the_card_is_python_and_a_hostile_answer_stays_in_its_cell(
    tmp_path: Path,
) -> None:
    card = render_card(record(), base(tmp_path))
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    compile(code[1], "card", "exec")
    assert "| &lt;script&gt;alert(1)&lt;/script&gt;\\| | b | c | b |" in card


def test_a_card_without_scores_says_that_nothing_was_measured(tmp_path: Path) -> None:
    nothing = {"questions": 0, "base": {"loss": 2.0}, "tuned": {}}
    card = render_card(record(evaluation=nothing, samples=[]), base(tmp_path))
    assert "Nothing was held out: how good it is was not measured.\n\n## Data" in card
    assert "| base |" not in card


def test_a_rejected_adapter_says_so_before_anything_else(tmp_path: Path) -> None:
    card = render_card(record(rejected=["it is zero & 'flat'"]), base(tmp_path))
    assert card.index("**This adapter was rejected:** it is zero & 'flat'.") < card.index("![")


def test_a_rank_that_vllm_does_not_know_is_rounded_up(tmp_path: Path) -> None:
    for rank, named in ((8, 8), (9, 16), (300, 320)):
        settings = RECORD["settings"] | {"lora_r": rank}
        card = render_card(record(settings=settings), base(tmp_path))
        assert f"--max-lora-rank {named} " in card


def test_the_base_is_loaded_as_it_was_trained_on_and_asked_as_it_was_tested(tmp_path: Path) -> None:
    precision = {"name": "bf16", "reason": "an H200"}
    card = render_card(record(precision=precision), base(tmp_path), ends=[1, 7])
    assert "bnb_4bit_compute_dtype=torch.bfloat16," in card
    assert "    dtype=torch.bfloat16,\n" in card
    assert "do_sample=False, eos_token_id=[1, 7]\n)" in card
    assert "vllm serve owner/base --quantization bitsandbytes --enable-lora" in card


def test_the_card_says_how_many_answers_the_merged_model_gives(tmp_path: Path) -> None:
    evaluation = RECORD["evaluation"] | {"merged": {"asked": 60, "same": 59}}
    said = (
        "as the commands `merge` and `export` do, it answers 59 of 60 questions as it does unmerged"
    )
    assert said in render_card(record(evaluation=evaluation), base(tmp_path))
    assert "Merged into" not in render_card(record(), base(tmp_path))


@pytest.mark.parametrize(
    "of_base",
    [
        "license: other: see below",
        "license:\tmit",
        "license: [a, b]",
        "license: 2024-99-99",
        "a: &a [x]\nlicense: [*a, *a, *a]",
        "license: " + "long " * 100,
        "license: " + "[" * 2000,
        "license: !!python/object:os.system x",
        "license: \xff",
        "- license",
    ],
)
def test_a_card_of_the_base_that_cannot_be_read_is_none(tmp_path: Path, of_base: str) -> None:
    found = base(tmp_path)
    (tmp_path / "README.md").write_bytes(f"---\n{of_base}\n---\n".encode("latin-1"))
    assert base_card(tmp_path) == {}
    assert "it is not recorded here" in render_card(record(), found)


def test_nobody_s_text_is_markup_in_the_card(tmp_path: Path) -> None:
    hostile = "<img src=x> ![a](http://b) [c](d) `e` # f\n\n# g"
    of_base = f"---\nlicense: {json.dumps(hostile)}\n---\n"
    samples = [dict.fromkeys(RECORD["samples"][0], hostile)]
    held = {"held_out_by": "documents", "held_out_documents": 2, "held_out_first": [hostile]}
    made = record(samples=samples, data=RECORD["data"] | held)
    card = render_card(made, base(tmp_path, of_base)).split("---\n", 2)[2]
    assert "&lt;img src=x&gt;" in card and "2 documents whole" in card
    for markup in ("<img", "![a]", "[c](", "`e`", "\n# g"):
        assert markup not in card, markup
