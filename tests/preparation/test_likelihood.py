"""Likelihoods behind a shared beginning are those of a model that reads each text whole."""

from pathlib import Path

import pytest
import torch
from support.loaded import built_in_model

from trainer.preparation import likelihood


def test_they_are_those_of_each_text_read_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = built_in_model(tmp_path)
    given, texts = [5, 9, 40, 7], [[8, 3], [11], [12, 13, 14, 300], [8, 3]]
    monkeypatch.setattr(likelihood, "_LOGITS", 3 * 4 * model.config.vocab_size)  # two parts
    found = likelihood.log_likelihoods(model, given, texts)
    alone = likelihood.log_likelihoods(model, given[:1], texts[:1])
    for text, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            logits_TV = model(torch.tensor([given + text])).logits[0].float().log_softmax(-1)
        expected = logits_TV[len(given) - 1 : -1].gather(-1, torch.tensor([text]).T).squeeze(-1)
        torch.testing.assert_close(torch.tensor(row), expected, rtol=0, atol=1e-4)
    assert len(alone[0]) == 2 and likelihood.log_likelihoods(model, given, []) == []
