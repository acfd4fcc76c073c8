"""The base model on its device, in NF4, and a fresh LoRA adapter on it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from trainer.errors import DoesNotFitError, SettingsError
from trainer.models.architecture import chosen_layers, model_class, peft_targets
from trainer.models.base_model import Base, target_modules
from trainer.models.checkpoint_names import NameMapping
from trainer.models.experts import expert_layouts
from trainer.models.nf4_cache import NF4Cache
from trainer.models.nf4_layout import loaded_fault
from trainer.models.nf4_stream import (
    UnknownLayoutError,
    WeightLayout,
    empty_experts,
    quantise,
    quantise_matrix,
)
from trainer.models.residual_stream import widen
from trainer.models.weight_files import fetch_weights, open_shards
from trainer.monitoring.counting import waiting
from trainer.settings import Settings

if TYPE_CHECKING:
    import torch

    from trainer.models.frozen_base import WholeBase
    from trainer.runtime.device import Device, Precision

MERGED = "merged_adapter"  # key of a config: what was merged into these weights

log = logging.getLogger(__name__)


def load_base(
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
    them this worker holds, and where: without it all of them, on the device.

    Raises SettingsError, DataError, DoesNotFitError, NotAllowedError or UnreachableError.
    """
    import torch

    from trainer.models.frozen_base import WholeBase

    on = torch.device(device.kind if device.kind == "cpu" else "cuda:0")
    frozen = frozen or WholeBase()
    if hasattr(base.config, MERGED):
        log.warning(
            "%s holds a merged adapter, which NF4 can round away whole, so that the base is left; "
            "name that base, and use the adapter itself",
            base.name,
        )
    with waiting(f"loading {base.name}"):
        return _loaded(base, settings, precision, on, frozen)


def _loaded(
    base: Base,
    settings: Settings,
    precision: "Precision",
    on: "torch.device",
    frozen: "WholeBase",
) -> Any:
    dtype = precision.dtype
    try:
        model = _load_streamed(base, settings, dtype, on, frozen)
    except UnknownLayoutError as error:
        if frozen.unloadable:
            instead = "QLORA_SHARDING=ddp" if frozen.is_sharded else "a smaller model"
            raise DoesNotFitError(
                f"{base.name} {frozen.unloadable}: {error}; use {instead}"
            ) from error
        log.info("%s is read by transformers' own loader: %s", base.name, error)
        fetch_weights(base, settings)
        model = _load_unknown_layout(base, dtype, on, why=error)
        (_compute_in if base.is_quantised else _quantise_experts)(model, dtype)
    return finished(model, precision)


def finished(model: Any, precision: "Precision") -> Any:
    """Frozen, without what a checkpoint says of how its model is to be used, wide enough."""
    from transformers import GenerationConfig

    model.config.use_cache = False
    # A base's own, with penalties or sampling, would show in every answer.
    model.generation_config = GenerationConfig()
    model.requires_grad_(False)
    _keep_as_quantised(model)
    return widen(model, precision.name)


def load_16bit(base: Base, settings: Settings, precision: "Precision", device: "Device") -> Any:
    """The base in its own weights, without four bits, frozen, in the compute dtype.

    Raises SettingsError for a base of quantised weights, and as `load_base` does.
    """
    import torch

    if base.is_quantised:
        raise SettingsError(
            f"{base.name}: its weights are quantised already, so there is no 16-bit base to judge "
            "by; leave --as out, or name the 16-bit model with --base-model"
        )
    fetch_weights(base, settings)
    on = torch.device(device.kind if device.kind == "cpu" else "cuda:0")
    return finished(load_with_transformers(base, precision.dtype, on, quantised=False), precision)


def load_with_transformers(
    base: Base, dtype: "torch.dtype", device: "torch.device", *, quantised: bool = True
) -> Any:
    """The base as transformers itself loads it, from files on local disk."""
    return model_class(base.config).from_pretrained(
        base.folder,
        quantization_config=_nf4_config(dtype) if quantised else None,
        dtype=dtype,
        device_map={"": device},
        attn_implementation=base.attention,
        use_safetensors=True,
        trust_remote_code=False,
    )


def _load_unknown_layout(
    base: Base, dtype: "torch.dtype", device: "torch.device", why: UnknownLayoutError
) -> Any:
    """Raises SettingsError for files of another model."""
    try:
        model = load_with_transformers(base, dtype, device)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as unreadable:
        if isinstance(unreadable, RuntimeError) and "mismatched" not in str(unreadable):
            raise
        raise _do_not_belong(base, str(why)) from unreadable
    if fault := loaded_fault(model):
        raise _do_not_belong(base, fault)
    return model


def _do_not_belong(base: Base, fact: str) -> SettingsError:
    return SettingsError(
        f"{base.name}: config.json and weights do not belong together ({fact}); bring the model "
        "there again or choose another QLORA_BASE_MODEL"
    )


def _load_streamed(
    base: Base,
    settings: Settings,
    dtype: "torch.dtype",
    device: "torch.device",
    frozen: "WholeBase",
) -> Any:
    """The same bits as `load_with_transformers`, without its need of memory and without the files
    on this disk. Raises UnknownLayoutError."""
    layout = weight_layout(base, dtype)
    frozen.allocate({name: layout.expected[name][1] for name in layout.quantised}, device)
    cache = _cache(base, settings, dtype, device)
    tensors = cache.load(layout, frozen.keep_shard) if cache else None
    if tensors is None:
        tensors = quantise(open_shards(base, settings), layout, device, frozen.keep_shard)
        if cache and not frozen.is_sharded:  # no worker has all of it
            cache.store({name: frozen.whole(name, kept) for name, kept in tensors.items()})
    model = model_of(base, tensors, layout, dtype, device)
    frozen.bind(model)
    return model


def model_of(
    base: Base,
    tensors: dict[str, "torch.Tensor"],
    layout: WeightLayout,
    dtype: "torch.dtype",
    device: "torch.device",
) -> Any:
    """The base with `tensors` for weights, as transformers makes it of a quantised checkpoint."""
    import torch

    from trainer.models.nf4_experts import put_experts

    experts = {name: tensors.pop(name) for name in layout.expert_tensors()}
    for name, one in layout.experts.items():  # of their shape, without memory
        tensors[name] = torch.zeros(1, dtype=dtype, device=device).expand(one.shape)
    config = deepcopy(base.skeleton.config)  # of the language model, where that is a class alone
    config.quantization_config = _nf4_config(dtype).to_dict()
    with _without_warmup():
        model = type(base.skeleton).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            device_map={"": device},
            attn_implementation=base.attention,
        )
    model.name_or_path = model.config.name_or_path = str(base.folder)
    put_experts(model, layout.experts, experts, dtype)
    return model


def _quantise_experts(model: Any, dtype: "torch.dtype") -> None:
    """Experts that transformers' own loader left in 16 bits, one weight after the other."""
    from trainer.models.nf4_experts import put_experts

    for name, layout in expert_layouts(model).items():
        values = model.get_parameter(name)
        made = empty_experts(layout, values.device)
        for n, matrix in enumerate(values.detach().view(-1, *layout.matrix_shape)):
            quantise_matrix(matrix, n, made, dtype)
        put_experts(model, {name: layout}, {f"{name}.{part}": t for part, t in made.items()}, dtype)


@contextmanager
def _without_warmup() -> Iterator[None]:
    """Keep transformers from reserving a GPU's memory for weights that lie there already: a base
    of more than half of that memory would not fit."""
    from transformers import modeling_utils

    reserve = modeling_utils.caching_allocator_warmup
    modeling_utils.caching_allocator_warmup = lambda *_: None
    try:
        yield
    finally:
        modeling_utils.caching_allocator_warmup = reserve


def _keep_as_quantised(model: Any) -> None:
    """Forbid bitsandbytes to pack the base anew for a CPU with AVX512-BF16.

    It would do so in evaluation mode, round the scales to bf16, and once more whenever a state
    dict is taken: the base would not be the one that was trained on, nor the same twice.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _compute_in(model: Any, dtype: "torch.dtype") -> None:
    """What was stored for another compute dtype, and what of it is not quantised, in ours."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = module.weight.quant_state.dtype = dtype
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _cache(
    base: Base, settings: Settings, dtype: "torch.dtype", device: "torch.device"
) -> NF4Cache | None:
    if not settings.base_cache_uri:
        return None
    return NF4Cache(settings, base=base.name, revision=base.revision, dtype=dtype, device=device)


def _nf4_config(dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def weight_layout(base: Base, dtype: "torch.dtype") -> WeightLayout:
    """What transformers would make of each tensor, computing in `dtype`. Raises
    UnknownLayoutError."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers.quantizers.auto import AutoHfQuantizer

    if base.is_quantised:
        raise UnknownLayoutError("its weights are quantised already")
    model = base.empty(dtype)
    experts, names = expert_layouts(model), NameMapping(model)
    stays_whole = _float32_names(model, dtype)
    expected = {
        name: (torch.float32 if stays_whole(name) else values.dtype, tuple(values.shape))
        for name, values in model.state_dict().items()
        if name not in experts
    }
    quantizer = AutoHfQuantizer.from_config(_nf4_config(dtype), pre_quantized=False)
    quantizer.preprocess_model(model, device_map={"": "meta"})
    linear = {n: m for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    if any(layer.source_cls is not torch.nn.Linear for layer in linear.values()):
        raise UnknownLayoutError("its matrices are stored transposed")
    return WeightLayout(
        expected=expected,
        quantised=frozenset(name + ".weight" for name in linear),
        tied=frozenset(model.all_tied_weights_keys),
        ignored=(r"rotary_emb\.inv_freq$", *(model._keys_to_ignore_on_load_unexpected or ())),
        experts=experts,
        dtype=dtype,
        place=names.place,
    )


def _float32_names(model: Any, dtype: "torch.dtype") -> Callable[[str], bool]:
    """Which weights transformers keeps in float32 whatever is computed in."""
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(dtype)
    if not plan:
        return lambda _: False
    pattern, _, _ = build_glob_alternation(list(plan))
    return lambda name: pattern.search(name) is not None


def attach_adapter(model: Any, settings: Settings) -> Any:
    """`model` with a fresh LoRA adapter, its start values decided by the seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    chosen = chosen_layers(model, target_modules(settings))
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=peft_targets(model, chosen),
            task_type="CAUSAL_LM",
        ),
    )


def adapter_to_float32(model: Any) -> None:
    """Undo trl's cast of the adapter to bf16, which a T4 cannot train and no resume restores."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
