"""A prompt needs places for itself and for its answer."""

from trainer.engine.prompt import Prompt


def test_a_prompt_takes_its_own_tokens_and_those_of_its_answer() -> None:
    prompt = Prompt([5, 6, 7], most=10)
    assert prompt.places == 13
    assert (prompt.temperature, prompt.top_p) == (0.0, 1.0)
