"""What is found out about a base by computing with it, before it is trained."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from trainer.dataset.packing import Int64
from trainer.errors import SettingsError
from trainer.models.architecture import linear_layers
from trainer.models.residual_stream import is_wide
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.device import Precision

log = logging.getLogger(__name__)

TOKENS = 16  # of each document that is tried
LEAK = 1e-3  # of the logits' spread; nothing leaks where the same kernels give the same bits
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}  # of shapes that differ
FP16_RANGE = 65504.0
PROBED_TOKENS = 256  # the first one holds the largest value
MARGIN = 2  # other texts, and the adapter, move the largest value

_FOUND: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def probe(
    model: Any, name: str, input_ids: Int64, plan: MemoryPlan | None, precision: Precision
) -> bool:
    """Whether documents need rows of their own in a run with this `plan`, None on the stock path;
    `input_ids` are some that will be trained.

    Raises SettingsError for a base that cannot be trained in this precision.
    """
    if precision.name == "fp16" and (plan is None or plan.base_shards == 1):
        check_range(model, input_ids[:PROBED_TOKENS], name)
    if plan is not None or not mixes_documents(model):
        return False
    log.info("%s sees over the end of a document: each gets a row of its own", name)
    return True


@torch.no_grad()
def mixes_documents(model: Any) -> bool:
    """Whether a document changes what `model` says of the one behind it in a block.

    transformers keeps attention inside a document by positions that start again, but not in all
    models; a recurrent layer goes on with the state that the last document left.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base not in _FOUND:  # it is frozen, and asked again for each block that is evaluated
        _FOUND[base] = _mixes(model)
    return _FOUND[base]


def _mixes(model: Any) -> bool:
    before, instead, document = _noise(model)
    alone = _logits(model, [document])
    behind, other = (_logits(model, [first, document])[TOKENS:] for first in (before, instead))
    spread = float(alone.std())
    leak, off = (float((behind - one).abs().max()) / spread for one in (other, alone))
    return not (
        leak <= LEAK and off <= ROUNDING.get(model.get_input_embeddings().weight.dtype, 0.1)
    )


@torch.no_grad()
def check_range(model: Any, input_ids: Int64, name: str) -> float:
    """The largest value that the layers of `model` hand on when they read `input_ids` [T]; where
    that is float32, that its linear layers give.

    Raises SettingsError where fp16 does not hold it.
    """
    found = [0.0]

    def look(_module: Any, _given: Any, out: Any) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        largest = hidden.abs().max().float()
        found.append(float("inf") if largest.isnan() else float(largest))

    wide = is_wide(model.config, "fp16")
    with _hooks(linear_layers(model).values() if wide else _layers(model), look):
        _logits(model, [torch.from_numpy(input_ids).to(model.device)])
    largest = max(found)
    if largest * MARGIN > FP16_RANGE:
        raise SettingsError(
            f"{name}: its values reach {largest:,.0f}, and those of fp16 end at {FP16_RANGE:,.0f}: "
            "it would train to NaN; use a GPU with bf16 (compute capability 8.0 and newer), or "
            "QLORA_PRECISION=fp32"
        )
    return largest


def _noise(model: Any) -> torch.Tensor:
    """Three documents of random words [3, TOKENS], none of those that stand for an image."""
    words = model.config.get_text_config(decoder=True).vocab_size
    generator = torch.Generator().manual_seed(0)
    shape = 3, TOKENS
    return torch.randint(words // 10, words // 2, shape, generator=generator).to(model.device)


def _logits(model: Any, documents: list[torch.Tensor]) -> torch.Tensor:
    """[T, V] float32, of documents in one block."""
    positions = torch.cat([torch.arange(len(one), device=one.device) for one in documents])
    was_training = model.training
    model.eval()
    dtype = model.get_input_embeddings().weight.dtype
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        made = model(
            input_ids=torch.cat(documents)[None], position_ids=positions[None], use_cache=False
        )
    model.train(was_training)
    logits: torch.Tensor = made.logits[0].float()
    return logits


def _layers(model: Any) -> list[Any]:
    """Of its decoder."""
    return [
        layer
        for module in model.get_decoder().modules()
        if isinstance(module, torch.nn.ModuleList)
        for layer in module
    ]


@contextmanager
def _hooks(modules: Iterable[Any], look: Any) -> Iterator[None]:
    """`look` at what each gives."""
    handles = [module.register_forward_hook(look) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
