"""What a CPU is predicted to do comes from what it did just now."""

from dataclasses import replace

from trainer.models.locate import locate_base
from trainer.planner.choose import Execution
from trainer.planner.cpu_speed import cpu_speed, predicted_on_this_cpu
from trainer.planner.memory_plan import MemoryPlan
from trainer.settings import Settings

SHAPE = locate_base(Settings.read({"base_model": "builtin:tiny"}, {}, trains=False)).shape()


def test_a_model_that_computes_a_hundred_times_as_much_is_predicted_slower() -> None:
    plan = Execution(4, MemoryPlan(SHAPE.layers, unpacked_layers=SHAPE.layers), "a CPU")
    small = predicted_on_this_cpu(plan, SHAPE, 128)
    large = predicted_on_this_cpu(
        plan, replace(SHAPE, linear_parameters=100 * SHAPE.linear_parameters), 128
    )
    assert small.tokens_per_s > 5 * large.tokens_per_s > 0
    assert replace(small, tokens_per_s=0) == plan


def test_products_and_element_wise_work_are_timed_apart() -> None:
    speed = cpu_speed(SHAPE, 256)
    assert speed.flops > 1e8
    assert speed.bytes_per_s > 1e6
    assert not speed.measured
