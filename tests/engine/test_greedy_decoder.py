"""Our loop answers as transformers' greedy generate does, token for token, in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.small_models import CONFIGS, tuned_model
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.engine import decode_rows, greedy_decoder
from trainer.engine.decode_rows import DecodeRows
from trainer.engine.greedy_decoder import GreedyDecoder, why_not
from trainer.engine.prompt import Prompt
from trainer.inference.as_merged import as_merged
from trainer.inference.stock_decoder import StockDecoder
from trainer.planner.decoding_plan import DecodingPlan

VOCABULARY, MOST = 331, 24
NEVER = [VOCABULARY]
SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
ENDS = [5, 77, 123, 200, 202, 300]
PROMPTS = [
    torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in [7, 1, 40, 3, 40, 12, 25, 2, 18, 33, 9, 60, 5, 14, 1, 21, 8, 50, 11, 4, 30, 6]
]


# How many tokens an expert is sent is not known before; a state is no keys and values.
BY_TRANSFORMERS = ("qwen3_moe", "qwen3_5_text")


def answers(decoder: Any, **more: Any) -> list[list[int]]:
    given = {"most": MOST, "tuned": True, "most_rows": len(PROMPTS)} | more
    found = dict(decoder.answers(PROMPTS, **given))
    return [found[number] for number in range(len(PROMPTS))]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return tuned_model("llama", tmp_path, "q_proj,v_proj").eval()


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in BY_TRANSFORMERS])
@pytest.mark.parametrize("targets", ["o_proj,down_proj", "all-linear"])
def test_tokens_are_those_of_transformers(family: str, targets: str, tmp_path: Path) -> None:
    """Prompts of many lengths, several end tokens, fewer rows than questions; then the base's."""
    wide = {"sliding_window": 128} if CONFIGS[family].get("sliding_window") else {}
    model = tuned_model(family, tmp_path, targets, **wide).eval()
    assert why_not(model) is None
    whole = answers(GreedyDecoder(model, NEVER))
    ends = [whole[0][3], whole[5][9], whole[11][0], whole[16][-1]]
    own, stock = GreedyDecoder(model, ends), StockDecoder(model, ends, 0)
    tuned, base = (answers(own, tuned=which, most_rows=5) for which in (True, False))
    assert tuned == answers(stock) and base == answers(stock, tuned=False)
    assert any(answer[-1] not in ends for answer in tuned)
    assert tuned != base or family == "gemma"  # which repeats what it was asked, so small
    assert {len(tuned[11]), len(tuned[0])} <= {1, 2, 3, 4}


@pytest.mark.parametrize("family", BY_TRANSFORMERS)
def test_others_are_left_to_transformers(family: str, tmp_path: Path) -> None:
    assert why_not(tuned_model(family, tmp_path, "all-linear")) is not None


def test_a_base_without_an_adapter_answers(model: Any) -> None:
    base = model.unload()
    assert why_not(base) is None
    assert answers(GreedyDecoder(base, ENDS)) == answers(StockDecoder(base, ENDS, 0))


def test_an_answer_comes_token_by_token(model: Any) -> None:
    decoder = GreedyDecoder(model, ENDS)
    together = answers(decoder)
    assert [list(decoder.stream(Prompt(p, MOST), tuned=True)) for p in PROMPTS] == together


def test_no_end_of_another_call_shows(model: Any) -> None:
    """Rows are used again: for shorter answers, for fewer, by the base and after a `close`."""
    decoder = GreedyDecoder(model, NEVER)
    whole = answers(decoder)
    assert answers(decoder, most=5) == [answer[:5] for answer in whole]
    assert list(decoder.stream(Prompt(PROMPTS[3], 7), tuned=True)) == whole[3][:7]
    base = answers(decoder, tuned=False)
    decoder.close()
    assert answers(decoder) == whole != base


def test_prompts_that_are_read_in_parts_are_read_alike(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(GreedyDecoder(model, NEVER))
    monkeypatch.setattr(decode_rows, "PROMPT_TOKENS", 45)  # less than the longest alone
    assert answers(GreedyDecoder(model, NEVER)) == whole


@pytest.mark.parametrize("family", ["llama", "qwen3", "granite"])
def test_a_shared_beginning_is_read_once_and_changes_no_token(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tuned_model(family, tmp_path, "all-linear").eval()
    system, passage = PROMPTS[11][:40], PROMPTS[17]
    given = [[*system, *(passage if at % 3 else []), *p] for at, p in enumerate(PROMPTS)]
    read, whole = [], DecodeRows._read_together

    def counted(rows: DecodeRows, readings: Any, *, tuned: bool) -> Any:
        read.extend(len(reading.rest) for reading in readings)
        return whole(rows, readings, tuned=tuned)

    monkeypatch.setattr(DecodeRows, "_read_together", counted)
    for rows in (5, 22):
        for tuned in (True, False):
            how: Any = {"tuned": tuned, "most_rows": rows}
            read.clear()
            found = dict(GreedyDecoder(model, ENDS).answers(given, MOST, **how))
            assert found == dict(StockDecoder(model, ENDS, 0).answers(given, MOST, **how))
            assert sum(read) < sum(map(len, PROMPTS)) + 200 < sum(map(len, given)) / 2


@pytest.mark.parametrize("unpacked", [0, 1, 3])
def test_unpacked_weights_are_the_same_numbers(
    unpacked: int, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(StockDecoder(model, NEVER, 0))
    plan = DecodingPlan(rows=4, unpacked_layers=unpacked, fused_rows=2)
    monkeypatch.setattr(greedy_decoder, "choose_decoding", lambda *_, **__: plan)
    assert answers(GreedyDecoder(model, NEVER)) == expected


def test_no_question_has_no_answer(model: Any) -> None:
    assert not list(GreedyDecoder(model, NEVER).answers([], MOST, tuned=True))


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"use_dora": True}, "no plain LoRA"),
        ({"lora_bias": True}, "no plain LoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "more than the layers"),
        ({"modules_to_save": ["embed_tokens"]}, "more than the layers"),
    ],
)
def test_an_adapter_that_the_engine_does_not_compute_is_left_to_transformers(
    lora: dict[str, Any], reason: str, model: Any
) -> None:
    given = {"target_modules": ["q_proj"]} | lora
    other = get_peft_model(model.unload(), LoraConfig(task_type="CAUSAL_LM", **given))
    assert reason in (why_not(other) or "")


def test_a_model_that_computes_as_its_merged_one_is_left_to_transformers(model: Any) -> None:
    with as_merged(model, torch.float16):
        assert "compute in another way" in (why_not(model) or "")
    assert why_not(model) is None


def test_weights_that_are_not_in_four_bits_are_left_to_transformers() -> None:
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL))
    assert "no 4-bit layer" in (why_not(plain) or "")
    tuned = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert "4-bit layers" in (why_not(tuned) or "")
