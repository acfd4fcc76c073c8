"""What a training run is made from, as one value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.dataset.holdout import HELD_OUT_LOSS
from trainer.dataset.packing import Block
from trainer.distributed.workers import Workers
from trainer.evaluation.afterwards import Afterwards
from trainer.models.frozen_base import WholeBase
from trainer.planner.choose import Execution
from trainer.planner.schedule import Schedule
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Model, data and how they are computed with. Everything in it is this worker's own."""

    model: Any
    """a PeftModel on a frozen NF4 base; its adapter is trained in place"""
    tokenizer: "PreTrainedTokenizerBase"
    blocks: Sequence[Block]
    """what is trained: packed blocks of `settings.max_length` tokens, the same on all workers"""
    held_out: Sequence[Block] = ()
    """packed blocks whose loss is measured now and then: never trained, where some are held out"""
    loss_name: str = HELD_OUT_LOSS
    """what that is"""
    afterwards: Afterwards | None = None
    """what comes behind the training"""
    teaches_answers: bool = True
    """whether there are records in what is trained, or prose alone"""
    settings: Settings
    precision: Precision
    """what is computed in; the adapter and its optimizer are float32 with any"""
    device: Device
    schedule: Schedule
    """how many steps of how many blocks, and how fast"""
    execution: Execution
    """blocks of a micro-batch and, where our engine trains, how it spends memory"""
    separate_documents: bool = False
    """whether the stock path gives each document a row of its own: it would see the one before"""
    workers: Workers = field(default_factory=Workers)
    """with whom each optimizer step is shared"""
    frozen_base: WholeBase = field(default_factory=WholeBase)
    """who holds the base's weights: each worker all of them, or a shard"""
