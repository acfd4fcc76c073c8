"""The base model: where it is, what shape it has, quantised to NF4, with a LoRA adapter on it."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import hub
from trainer.base_cache import BaseCache
from trainer.errors import DataError, DoesNotFitError, SettingsError
from trainer.settings import Settings, publishable_uri
from trainer.storage import Stored, fetch, objects_at
from trainer.storage.disk import chunks_of, sha256_of
from trainer.weights import Shard, Target, UnknownLayoutError, quantise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from trainer.device import Device, Precision
    from trainer.sharding import WholeBase

log = logging.getLogger(__name__)

BUILTIN = Path(__file__).parent / "builtin"
CONFIG_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "README.md"]  # and tokenizer; small
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # never a pickle


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide memory and time; parameter counts are of the whole model.

    `q` and `kv` are the widths of the query and of the key, `widest` the values of the largest
    quantised matrix, `ends_parameters` those of embedding and head.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    q: int
    kv: int
    widest: int
    linear_parameters: int
    ends_parameters: int
    other_parameters: int

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters


@dataclass(frozen=True)
class Base:
    """A base model whose config and tokenizer are on local disk, in `folder`.

    `name` and `revision` are what may be published. Its weights are there too, or on the hub, or
    below `bucket_uri` as `stored`.
    """

    folder: Path
    name: str
    revision: str
    is_from_hub: bool = False
    bucket_uri: str = ""
    stored: tuple[Stored, ...] = ()

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except ValueError as error:
            raise SettingsError(f"{self.name}: {self._why_unknown(error)}") from error

    def _why_unknown(self, error: ValueError) -> str:
        config = json.loads((self.folder / "config.json").read_text())
        if "auto_map" in config:
            fact = "needs code of its own, which is never run"
        else:
            kind = config.get("model_type")
            fact = f"{kind!r} is no model that transformers knows ({str(error).split('.')[0]})"
        return f"{fact}; choose another QLORA_BASE_MODEL"

    @property
    def is_quantised(self) -> bool:
        """Whether the weights on disk are: 4 bits are made here, from 16."""
        return getattr(self.config, "quantization_config", None) is not None

    @cached_property
    def skeleton(self) -> Any:
        """The model without memory behind its weights: its module names and sizes."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)

    @property
    def attention(self) -> str:
        """torch's fused attention, but for models that cap the scores inside of it."""
        return "sdpa" if self.skeleton._supports_sdpa else "eager"

    @cached_property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Every layer that is quantised and can carry an adapter: name to (in, out) features."""
        import torch

        head = self.skeleton.get_output_embeddings()
        return {
            name: (module.in_features, module.out_features)
            for name, module in self.skeleton.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }

    def shape(self) -> Shape:
        text = self.config.get_text_config()
        linear = sum(rows * columns for rows, columns in self.linear_layers.values())
        every = sum(p.numel() for p in self.skeleton.parameters())
        heads = text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        ends = text.vocab_size * text.hidden_size
        return Shape(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            vocabulary=text.vocab_size,
            heads=heads,
            q=heads * size,
            kv=(getattr(text, "num_key_value_heads", None) or heads) * size,
            widest=max(rows * columns for rows, columns in self.linear_layers.values()),
            linear_parameters=linear,
            ends_parameters=ends if text.tie_word_embeddings else 2 * ends,
            other_parameters=every - linear,
        )

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer, with a pad token."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        if tokenizer.eos_token_id is None:
            raise SettingsError(
                f"{self.name}: its tokenizer has no end token; choose another QLORA_BASE_MODEL"
            )
        if tokenizer.pad_token_id is None:
            # Padding is masked by position here, so sharing a token with the end costs nothing.
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        return tokenizer


def locate(settings: Settings) -> Base:
    """Bring the base model's config and tokenizer to local disk; `load` brings the weights.

    Raises SettingsError, NotAllowedError or UnreachableError.
    """
    name = settings.base_model
    if name.startswith("builtin:"):
        return _local(BUILTIN / name.removeprefix("builtin:"), name)
    if name.startswith("s3://"):
        return _in_bucket(name, settings)
    if Path(name).is_dir():
        return _local(Path(name), Path(name).resolve().name)
    if name.startswith((".", "/", "~")):
        raise SettingsError(f"QLORA_BASE_MODEL={name}: no such folder")
    return _on_hub(name, settings)


def check(base: Base, settings: Settings) -> None:
    """Faults that only the base model's config can show, all at once. Raises SettingsError."""
    faults = []
    longest = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    if longest and settings.max_length > longest:
        faults.append(
            f"QLORA_MAX_LENGTH={settings.max_length}: {base.name} reads at most {longest} tokens"
        )
    if settings.target_modules != ("all-linear",):
        real = sorted({layer.rpartition(".")[2] for layer in base.linear_layers})
        wrong = [name for name in settings.target_modules if name not in real]
        if wrong:
            faults.append(
                f"QLORA_TARGET_MODULES={','.join(wrong)}: not in {base.name}, "
                f"which has {', '.join(real)} (or all-linear)"
            )
    if faults:
        raise SettingsError("; ".join(faults))


def trainable_parameters(base: Base, settings: Settings) -> int:
    """Parameters of the adapter: r (in + out) for each layer it is on."""
    everywhere = settings.target_modules == ("all-linear",)
    return sum(
        settings.lora_r * (rows + columns)
        for name, (rows, columns) in base.linear_layers.items()
        if everywhere or name.rpartition(".")[2] in settings.target_modules
    )


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

    from trainer.sharding import WholeBase

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
        model = _stock(base, precision.dtype, place)
    model.config.use_cache = False
    model.requires_grad_(False)
    return model


def _from_tensors(
    base: Base, settings: Settings, dtype: "torch.dtype", place: Any, frozen: "WholeBase"
) -> Any:
    """The same bits as `_stock`, without its need of memory and without the files on this disk."""
    from copy import deepcopy

    target = _target(base, dtype)
    frozen.expect({name: target.expected[name][1] for name in target.quantised}, place)
    cache = _cache(base, settings, dtype, place)
    tensors = cache.bring(target, frozen.take) if cache else None
    if tensors is None:
        tensors = quantise(_shards(base, settings), target, place, frozen.take)
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
    frozen.attach(model)
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
    everywhere = settings.target_modules == ("all-linear",)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules="all-linear" if everywhere else list(settings.target_modules),
            task_type="CAUSAL_LM",
        ),
    )


def adapter_to_float32(model: Any) -> None:
    """Undo trl's cast of the adapter to bf16, which a T4 cannot train and no resume restores."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def _on_hub(name: str, settings: Settings) -> Base:
    minutes = settings.storage_retry_minutes
    folder = hub.snapshot(name, settings.base_revision, CONFIG_FILES, retry_minutes=minutes)
    configs = [path.name for path in folder.glob("*") if _is_config(path.name)]
    hub.check(folder, configs, name, retry_minutes=minutes)
    _check_config(folder, name)
    # The hub's cache names a snapshot's folder by its commit.
    return Base(folder, name, revision=folder.name, is_from_hub=True)


def _in_bucket(uri: str, settings: Settings) -> Base:
    """A model below a prefix; its revision is the digest of the names and ETags of its files."""
    minutes = settings.storage_retry_minutes
    store, found = objects_at(uri, retry_minutes=minutes)
    stored = [one for one in found if "/" not in one.name]
    into = settings.scratch_dir / "base" / hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    if not any(one.name == "config.json" for one in stored):
        raise SettingsError(f"{uri}: no config.json there; name the prefix that holds the model")
    fetch(uri, into, retry_minutes=minutes, wanted=_is_config)
    digest = hashlib.sha256()
    for one in stored:
        if one.name == "config.json" or one.name.endswith(".safetensors"):
            digest.update(f"{one.name} {one.size} {one.version}\n".encode())
    _check_config(into, uri)
    return Base(
        into,
        publishable_uri(uri),
        f"etag:{digest.hexdigest()[:16]}",
        bucket_uri=uri,
        stored=tuple(stored),
    )


def _is_config(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in CONFIG_FILES)


def _local(folder: Path, name: str) -> Base:
    """A model in a folder; its revision is the digest of its config and weights."""
    _check_config(folder, name)
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(sha256_of(path).encode())
    return Base(folder, name, f"sha256:{digest.hexdigest()[:16]}")


def _check_config(folder: Path, name: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise SettingsError(f"{name}: no config.json there; name the folder that holds the model")
    try:
        json.loads(config.read_text())
    except ValueError as error:
        raise SettingsError(f"{name}: its config.json is not JSON ({error})") from None
