"""How likely a model finds texts behind other texts, token by token."""

from collections.abc import Sequence
from typing import Any

from trainer.inference.precision import compute_precision

_LOGITS = 1 << 28  # values of them at once: a GiB in float32


def log_likelihoods(
    model: Any, given: Sequence[int], texts: Sequence[Sequence[int]]
) -> list[list[float]]:
    """In nats: of each token of each of `texts`, behind the tokens `given`, which are read once.

    `model` is one of transformers' decoders as it stands. Raises RuntimeError (out of memory).
    """
    import torch

    found: list[list[float]] = []
    longest = max(map(len, texts), default=0)
    rows = max(1, _LOGITS // (max(longest, 1) * model.config.get_text_config().vocab_size))
    with torch.inference_mode(), compute_precision(model):
        for first in range(0, len(texts), rows):
            found += _of_rows(model, given, texts[first : first + rows])
    return found


def _of_rows(model: Any, given: Sequence[int], texts: Sequence[Sequence[int]]) -> list[list[float]]:
    import torch

    head = torch.tensor([list(given[:-1])], device=model.device)
    longest = max(map(len, texts))
    # The last given token predicts the first of the text; what pads a row is behind its end.
    ids_BT = torch.tensor(
        [[given[-1], *text, *[0] * (longest - len(text))] for text in texts], device=model.device
    )
    cache = None
    if head.numel():
        cache = model(head, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(texts))
    logits_BTV = model(ids_BT[:, :-1], past_key_values=cache, use_cache=True).logits.float()
    picked_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[:, 1:, None]).squeeze(-1).tolist()
    return [row[: len(text)] for row, text in zip(picked_BT, texts, strict=True)]
