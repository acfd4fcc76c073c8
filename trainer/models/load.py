"""The base model's weights: quantised to NF4 as they are read, with a LoRA adapter on them."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError, DoesNotFitError, SettingsError
from trainer.models import hub
from trainer.models.base_model import Base
from trainer.models.nf4_cache import BaseCache
from trainer.models.nf4_stream import Shard, Target, UnknownLayoutError, quantise
from trainer.settings import ALL_LINEAR, Settings
from trainer.storage import fetch, objects_at
from trainer.storage.files import chunks_of

if TYPE_CHECKING:
    import torch

    from trainer.models.sharded_base import WholeBase
    from trainer.runtime.device import Device, Precision

log = logging.getLogger(__name__)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # never a pickle


def weights(base: Base, settings: Settings) -> list[Path]:
    """Every file of the base's weights, brought to local disk. Raises as `locate` does."""
    names = _weight_files(base)
    minutes = settings.storage_retry_minutes
    if base.is_from_hub:
        hub.snapshot(base.name, base.revision, names, retry_minutes=minutes)
        hub.check(base.folder, names, base.name, retry_minutes=minutes)
    if base.bucket_uri:
        kept = {*names, *(path.name for path in base.folder.iterdir())}
        fetch(base.bucket_uri, base.folder, retry_minutes=minutes, wanted=kept.__contains__)
    return _on_disk(base, names)


def _on_disk(base: Base, names: list[str]) -> list[Path]:
    missing = [name for name in names if not (base.folder / name).is_file()]
    if missing:
        raise _no_weights(base, missing[0])
    return [base.folder / name for name in names]


def load(
    base: Base,
    settings: Settings,
    precision: "Precision",
    device: "Device",
    frozen: "WholeBase | None" = None,
) -> Any:
    """The base model, its linear layers quantised to NF4 with double quantisation, frozen.

    Embedding, head and norms stay in the compute dtype: the usual cast to float32 costs 0.5 GiB
    on a 7B model and slows each step. The weights come from QLORA_BASE_CACHE_URI if they are
    there; otherwise they are quantised as they are read, and kept there. `frozen` says what of
    them this worker holds.
    """
    import torch

    from trainer.models.sharded_base import WholeBase

    place = torch.device(device.kind if device.kind == "cpu" else "cuda:0")
    frozen = frozen or WholeBase()
    try:
        model = _from_tensors(base, settings, precision.dtype, place, frozen)
    except UnknownLayoutError as error:
        if frozen.is_sharded:
            raise DoesNotFitError(
                f"{base.name} cannot be held in parts: {error}; use QLORA_SHARDING=ddp"
            ) from error
        log.info("%s is read by transformers' own loader: %s", base.name, error)
        weights(base, settings)
        try:
            model = _stock(base, precision.dtype, place)
        except RuntimeError as unreadable:
            if "mismatched" not in str(unreadable):
                raise
            raise SettingsError(
                f"{base.name}: config.json and weights do not belong together ({error}); bring the "
                "model there again or choose another QLORA_BASE_MODEL"
            ) from unreadable
    model.config.use_cache = False
    model.requires_grad_(False)
    _keep_as_quantised(model)
    return model


def _keep_as_quantised(model: Any) -> None:
    """Forbid bitsandbytes to pack the base anew for a CPU with AVX512-BF16.

    It would do so in evaluation mode, round the scales to bf16, and once more whenever a state
    dict is taken: the base would not be the one that was trained on, nor the same twice.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _from_tensors(
    base: Base, settings: Settings, dtype: "torch.dtype", place: Any, frozen: "WholeBase"
) -> Any:
    """The same bits as `_stock`, without its need of memory and without the files on this disk."""
    from copy import deepcopy

    target = _target(base, dtype)
    frozen.allocate({name: target.expected[name][1] for name in target.quantised}, place)
    cache = _cache(base, settings, dtype, place)
    tensors = cache.bring(target, frozen.keep_shard) if cache else None
    if tensors is None:
        tensors = quantise(_shards(base, settings), target, place, frozen.keep_shard)
        if cache and not frozen.is_sharded:  # no worker has all of it
            cache.keep(tensors)
    config = deepcopy(base.config)
    config.quantization_config = _nf4(dtype).to_dict()
    with _nothing_set_aside():
        model = type(base.skeleton).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            device_map={"": place},
            attn_implementation=base.attention,
        )
    frozen.bind(model)
    model.name_or_path = model.config.name_or_path = str(base.folder)
    if (base.folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(base.folder)
    return model


@contextmanager
def _nothing_set_aside() -> Iterator[None]:
    """Keep transformers from reserving a GPU's memory for weights that lie there already: a base
    of more than half of that memory would not fit."""
    from transformers import modeling_utils

    reserve = modeling_utils.caching_allocator_warmup
    modeling_utils.caching_allocator_warmup = lambda *_: None
    try:
        yield
    finally:
        modeling_utils.caching_allocator_warmup = reserve


def _cache(base: Base, settings: Settings, dtype: "torch.dtype", place: Any) -> BaseCache | None:
    if not settings.base_cache_uri:
        return None
    return BaseCache(settings, base=base.name, revision=base.revision, dtype=dtype, place=place)


def _stock(base: Base, dtype: "torch.dtype", place: Any) -> Any:
    """The base as transformers itself loads it, from files on local disk."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base.folder,
        quantization_config=_nf4(dtype),
        dtype=dtype,
        device_map={"": place},
        attn_implementation=base.attention,
        use_safetensors=True,
        trust_remote_code=False,
    )


def _nf4(dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _target(base: Base, dtype: "torch.dtype") -> Target:
    """What transformers would make of each tensor. Raises UnknownLayoutError."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.auto import AutoHfQuantizer

    if getattr(base.config, "quantization_config", None) is not None:
        raise UnknownLayoutError("its weights are quantised already")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config, dtype=dtype, trust_remote_code=False)
    if model._get_dtype_plan(dtype):
        raise UnknownLayoutError("parts of it stay in float32")
    expected = {name: (t.dtype, tuple(t.shape)) for name, t in model.state_dict().items()}
    quantizer = AutoHfQuantizer.from_config(_nf4(dtype), pre_quantized=False)
    quantizer.preprocess_model(model, device_map={"": "meta"})
    linear = {n: m for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    if any(layer.source_cls is not torch.nn.Linear for layer in linear.values()):
        raise UnknownLayoutError("its matrices are stored transposed")
    return Target(
        expected=expected,
        quantised=frozenset(name + ".weight" for name in linear),
        tied=frozenset(model.all_tied_weights_keys),
        ignored=(r"rotary_emb\.inv_freq$", *(model._keys_to_ignore_on_load_unexpected or ())),
    )


def _shards(base: Base, settings: Settings) -> list[Shard]:
    """The base's weights as streams; of a bucket they are never written to this disk."""
    names, minutes = _weight_files(base), settings.storage_retry_minutes
    if base.is_from_hub:
        hub.snapshot(base.name, base.revision, names, retry_minutes=minutes)
    if not base.bucket_uri:
        return [_shard(base, path, minutes) for path in _on_disk(base, names)]
    store, _ = objects_at(base.bucket_uri, retry_minutes=minutes)
    stored = {one.name: one for one in base.stored}
    missing = [name for name in names if name not in stored]
    if missing:
        raise _no_weights(base, missing[0])
    return [
        Shard(store.uri + name, stored[name].size, partial(store.chunks, stored[name]))
        for name in names
    ]


def _shard(base: Base, path: Path, minutes: float) -> Shard:
    read = partial(chunks_of, path)
    if base.is_from_hub:
        read = partial(hub.read, base.folder, path.name, base.name, retry_minutes=minutes)
    return Shard(str(path), path.stat().st_size, read)


def _weight_files(base: Base) -> list[str]:
    """The names of the base's weights: those of its index, or the one file. Raises DataError."""
    index = base.folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        sound = bool(names) and all(re.fullmatch(r"[\w.-]+\.safetensors", n) for n in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(f"{base.name}: its {INDEX} is broken; bring the model there again")
    return names


def _no_weights(base: Base, name: str) -> SettingsError:
    return SettingsError(
        f"{base.name}: no .safetensors weights there ({name} is missing); "
        "pickled weights are never read"
    )


def attach_adapter(model: Any, settings: Settings) -> Any:
    """`model` with a fresh LoRA adapter, its start values decided by the seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    everywhere = settings.target_modules == (ALL_LINEAR,)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=ALL_LINEAR if everywhere else list(settings.target_modules),
            task_type="CAUSAL_LM",
        ),
    )


def adapter_to_float32(model: Any) -> None:
    """Undo trl's cast of the adapter to bf16, which a T4 cannot train and no resume restores."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
