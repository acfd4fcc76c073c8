"""Noise on embeddings: as much as NEFTune says, by the length of each document."""

import math
from pathlib import Path

import pytest
import torch
from support.small_models import packed_batch, tuned_model

from trainer.engine.embedding_noise import add_noise, noisy_embedding

WIDTH, ALPHA = 64, 5.0


def test_a_document_has_noise_by_its_own_length() -> None:
    starts = torch.tensor([0, 4, 24, 24, 24], dtype=torch.int32)  # two empty ones, as in a graph
    noise = add_noise(torch.zeros(24, WIDTH), starts, ALPHA).abs()
    for part, length in ((noise[:4], 4), (noise[4:], 20)):
        most = ALPHA / math.sqrt(length * WIDTH)
        assert 0.95 * most < part.max() <= most
        assert part.mean() == pytest.approx(most / 2, rel=0.15)


def test_what_it_is_added_to_stays_as_it_was() -> None:
    x, starts = torch.ones(8, WIDTH, dtype=torch.bfloat16), torch.tensor([0, 8])
    noisy = add_noise(x, starts, ALPHA)
    assert torch.equal(x, torch.ones_like(x))
    assert noisy.dtype == x.dtype
    assert noisy.float().mean() == pytest.approx(1, abs=0.05)


def test_a_model_of_transformers_has_it_in_the_context_alone(tmp_path: Path) -> None:
    model, batch = tuned_model("llama", tmp_path, "q_proj,v_proj"), packed_batch()
    quiet = model(**batch, use_cache=False).loss
    with noisy_embedding(model, batch["position_ids"], 50.0):
        assert not torch.allclose(model(**batch, use_cache=False).loss, quiet)
    assert torch.equal(model(**batch, use_cache=False).loss, quiet)
