"""The next token of each row where it is drawn, and not the likeliest."""

import torch


def drawn(
    logits_MV: torch.Tensor, temperature_M: torch.Tensor, top_p_M: torch.Tensor
) -> torch.Tensor:
    """A token for each row, int64 [M]. Nothing here waits for a GPU."""
    scaled = logits_MV.float() / temperature_M.clamp(min=1e-4)[:, None]
    ordered, order = scaled.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p_M[:, None], 0)
    kept[:, 0] = ordered[:, 0]  # the likeliest, whatever top_p is
    # Gumbel's trick as a race of exponentials: the winner is distributed as the weights are.
    winner = (kept / torch.empty_like(kept).exponential_()).argmax(-1, keepdim=True)
    return order.gather(1, winner)[:, 0]
