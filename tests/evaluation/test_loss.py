"""The held-out loss against the cross-entropy that transformers computes."""

from typing import Any

import numpy as np
import pytest
import torch
from support.loaded import built_in_model

from trainer.dataset.packing import Block
from trainer.evaluation.loss import STACKED_TOKENS, held_out_loss
from trainer.labels import IGNORED

TOKENS = 48
END = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from peft import LoraConfig, get_peft_model

    loaded, _ = built_in_model(tmp_path_factory.mktemp("scratch"))
    return get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"]))


def block(seed: int, trained: int) -> Block:
    """One document whose last `trained` tokens have a loss, the last of them an end."""
    ids = np.random.default_rng(seed).integers(10, 3000, TOKENS)
    ids[-1] = END
    labels = np.where(np.arange(TOKENS) < TOKENS - trained, IGNORED, ids)
    return Block(ids, labels, np.arange(TOKENS))


def losses_of(model: Any, one: Block) -> torch.Tensor:
    """[N] of its N trained tokens."""
    with torch.no_grad():
        logits = model(torch.from_numpy(one.input_ids)[None]).logits[0, :-1].float()
    labels = torch.from_numpy(one.labels[1:])
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return loss[labels != IGNORED]


def test_it_is_the_mean_over_every_trained_token_and_over_the_ends(model: Any) -> None:
    blocks = [block(1, 40), block(2, 3)]
    expected = [losses_of(model, one) for one in blocks]
    loss, end_loss = held_out_loss(model, blocks, [END])
    assert loss == pytest.approx(float(torch.cat(expected).mean()), rel=1e-4)
    assert end_loss == pytest.approx(float(sum(e[-1] for e in expected) / 2), rel=1e-4)


def test_blocks_that_are_computed_together_lose_what_their_documents_lose_alone(
    model: Any,
) -> None:
    alone = [block(seed, 1 + seed % 40) for seed in range(60)]
    packed = [
        Block(*(np.concatenate([vars(one)[name] for one in pair]) for name in vars(pair[0])))
        for pair in zip(alone[::2], alone[1::2], strict=True)
    ]
    assert len(packed) * 2 * TOKENS > 2 * STACKED_TOKENS
    expected = torch.cat([losses_of(model, one) for one in alone])
    assert held_out_loss(model, packed)[0] == pytest.approx(float(expected.mean()), rel=1e-5)


def test_without_an_end_there_is_no_loss_of_ends(model: Any) -> None:
    assert held_out_loss(model, [block(1, 5)])[1] is None
    assert held_out_loss(model, [block(1, 5)], [END + 1])[1] is None


def test_a_block_of_which_nothing_is_trained_has_a_loss_of_zero(model: Any) -> None:
    assert held_out_loss(model, [block(1, 0)], [END]) == (0.0, None)
