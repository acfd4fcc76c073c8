"""Which micro-batches are whose, and that it does not matter for the sum of a step.

That whole runs end in the weights of one worker is in test_workers.py.
"""

from itertools import chain

import pytest
import torch

from trainer.distributed.data_parallel import GradientAccumulator, MicroBatchSampler
from trainer.distributed.workers import Workers
from trainer.errors import SettingsError


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("blocks", "effective", "micro_batch"), [(18, 4, 1), (7, 8, 2), (33, 6, 1)]
)
def test_the_micro_batches_of_workers_are_disjoint_complete_and_equally_many(
    blocks: int, effective: int, micro_batch: int, size: int
) -> None:
    def drawn(rank: int, size: int) -> tuple[list[list[int]], int]:
        sampler = MicroBatchSampler(
            blocks,
            effective_batch_size=effective,
            micro_batch_size=micro_batch,
            seed=1,
            workers=Workers(rank, size),
        )
        sampler.set_epoch(3)
        micro_batches = list(sampler)
        assert len(micro_batches) == len(sampler)
        return micro_batches, sampler.micro_batches_per_step

    of_all = [drawn(rank, size) for rank in range(size)]
    assert len({len(own) for own, _ in of_all}) == 1
    assert sorted(chain(*(chain(*own) for own, _ in of_all))) == list(range(blocks))
    step = [chain(*own[:per_step]) for own, per_step in of_all]
    alone, per_step = drawn(0, 1)
    assert sorted(chain(*step)) == sorted(chain(*alone[:per_step]))


def test_fewer_micro_batches_than_workers_are_refused() -> None:
    with pytest.raises(SettingsError, match="=2 in micro-batches of 2 is too little for 2 workers"):
        MicroBatchSampler(
            9, effective_batch_size=2, micro_batch_size=2, seed=0, workers=Workers(0, 2)
        )


def test_the_gradient_of_a_step_is_the_sum_in_float64_rounded_once() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    accumulator = GradientAccumulator(0, Workers())
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 3, generator=generator) * 10 ** torch.arange(-10.0, 10.0)[:, None]
    for gradient in gradients:
        parameter.grad = gradient.clone()
        accumulator.add([parameter], torch.tensor(0.5))
        assert parameter.grad is None
    accumulator.add([parameter], None)  # others have one micro-batch more
    assert accumulator.all_reduce([parameter], stop_requested=True) == (10.0, True)
    assert torch.equal(parameter.grad, gradients.double().sum(0).float())


def test_a_micro_batch_has_the_same_dropout_whoever_computes_it() -> None:
    def drawn(rank: int, size: int, count: int) -> list[float]:
        accumulator = GradientAccumulator(3, Workers(rank, size))
        values = []
        for _ in range(count):
            accumulator.seed_dropout(5)
            values.append(torch.rand(1).item())
        return values

    alone = drawn(0, 1, 6)
    assert len(set(alone)) == 6
    assert [drawn(rank, 2, 3) for rank in (0, 1)] == [alone[0::2], alone[1::2]]
