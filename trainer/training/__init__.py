"""The training run: SFTTrainer on packed blocks, resumable to the bit, stopped when it diverges.

`loop` is the story, from a `setup` to a result. `engine_trainer` is trl's trainer with our engine,
for one worker's share of each step; `resumable_trainer` saves and restores it without pickles.
`callback` looks at each step, `divergence` and `validation` judge it. `checkpoint_state` is what a
checkpoint holds, `checkpoint_validation` tells whether it can be gone on from.
"""
