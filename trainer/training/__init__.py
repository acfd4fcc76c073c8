"""The training run: SFTTrainer on packed blocks, resumable to the bit, stopped when it diverges.

`run` is the story; `making` sets trl's trainer up, `resumable` is that trainer with our engine and
without pickles, `watch` looks at each step, `state` is what a checkpoint holds, `soundness` tells
whether it can be gone on from.
"""

from trainer.training.loop import Trained, train

__all__ = ["Trained", "train"]
