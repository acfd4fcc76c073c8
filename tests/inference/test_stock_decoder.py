"""Answers through transformers: greedy, whatever the base's own settings say."""

from typing import Any

import pytest
from support.bases import load_small, settings_for
from support.small_adapters import tiny_as

from trainer.engine.prompt import Prompt
from trainer.inference.stock_decoder import StockDecoder

PROMPTS = [[40, 50, 60], [7] * 9, [300, 2, 9, 4], [11]]
OWN = (  # what bases bring in generation_config.json, some of which ended runs
    '{"repetition_penalty": 1.3, "do_sample": true, "temperature": 2.0, "num_beams": 3,'
    ' "min_new_tokens": 9, "guidance_scale": 2, "return_dict_in_generate": true}'
)


def answers(decoder: StockDecoder, most: int = 12) -> dict[int, list[int]]:
    return dict(decoder.answers(PROMPTS, most, tuned=True, most_rows=3))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same base, with generation settings of its own and without."""
    made = []
    for text in ("{}", OWN):
        folder = tiny_as(tmp_path_factory.mktemp("base"), "float32")
        (folder / "generation_config.json").write_text(text)
        made.append(load_small(settings_for(folder, folder / "scratch")).eval())
    return made[0], made[1]


def test_settings_that_a_base_brings_take_no_part(models: tuple[Any, Any]) -> None:
    plain, with_own = (answers(StockDecoder(model, [1], 0)) for model in models)
    assert plain == with_own


def test_an_answer_has_its_end_and_no_more(models: tuple[Any, Any]) -> None:
    whole = answers(StockDecoder(models[0], [10**6], 0))
    ends = [whole[0][3], whole[1][5]]
    for number, found in answers(StockDecoder(models[0], ends, 0)).items():
        at = next((i for i, token in enumerate(whole[number]) if token in ends), 11)
        assert found == whole[number][: at + 1]


def test_an_answer_comes_token_by_token_and_can_be_left(models: tuple[Any, Any]) -> None:
    decoder = StockDecoder(models[0], [10**6], 0)
    whole = answers(decoder)[1]
    assert list(decoder.stream(Prompt(PROMPTS[1], 12), tuned=True)) == whole
    tokens = decoder.stream(Prompt(PROMPTS[1], 12), tuned=True)
    assert next(tokens) == whole[0]
    tokens.close()


def test_what_fails_while_it_is_made_is_told(models: tuple[Any, Any]) -> None:
    with pytest.raises(IndexError):
        list(StockDecoder(models[0], [1], 0).stream(Prompt([10**6], 4), tuned=True))


def test_one_runs_at_a_time_and_another_when_it_has_ended_or_left(models: tuple[Any, Any]) -> None:
    decoder = StockDecoder(models[0], [10**6], 0)
    whole = answers(decoder, 3)
    running = decoder.open(5, 20, 3, tuned=True)
    running.join({7: Prompt(PROMPTS[0], 3)})
    assert (len(running), running.free) == (1, 0)
    assert running.newest() == [(7, whole[0][0])]
    while not (ended := running.take_ended()):
        running.step()
    assert ended == [(7, whole[0])]
    running.join({8: Prompt(PROMPTS[1], 3)})
    running.leave(8)
    assert (len(running), running.free) == (0, 1)
