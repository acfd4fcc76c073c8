"""When a run has diverged: judged from the loss and the gradient norm of each step."""

import math

from trainer.errors import RejectedError

# fp16 loss scaling starts high and skips the first steps; more than this in a row is divergence.
MOST_UNUSABLE_STEPS = 8


def is_usable(loss: float, gradient_norm: float) -> bool:
    """Whether a step with this mean loss has moved the adapter; a norm of 0 is a dead one."""
    return math.isfinite(loss) and math.isfinite(gradient_norm) and gradient_norm > 0


class DivergenceDetector:
    """Is told of each step in turn; it begins anew with each start of a run."""

    def __init__(self) -> None:
        self._unusable_in_a_row = 0

    def step(self, loss: float, gradient_norm: float) -> None:
        """Raises RejectedError once MOST_UNUSABLE_STEPS in a row were not usable."""
        usable = is_usable(loss, gradient_norm)
        self._unusable_in_a_row = 0 if usable else self._unusable_in_a_row + 1
        if self._unusable_in_a_row >= MOST_UNUSABLE_STEPS:
            raise RejectedError(
                f"training diverged: loss {loss:.4g}, gradient norm {gradient_norm:.4g} and "
                f"{MOST_UNUSABLE_STEPS} unusable steps in a row; lower QLORA_LEARNING_RATE or "
                "check the data"
            )
