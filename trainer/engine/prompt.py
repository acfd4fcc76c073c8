"""What is continued, and how."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Token ids, and how they are continued: by at most `most` tokens, the likeliest at temperature
    0; else drawn from the softmax of logits / temperature, among the likeliest that hold `top_p` of
    it together (Holtzman et al. 2020)."""

    ids: Sequence[int]
    most: int
    temperature: float = 0.0
    top_p: float = 1.0

    @property
    def places(self) -> int:
        """Tokens of itself and its answer."""
        return len(self.ids) + self.most
