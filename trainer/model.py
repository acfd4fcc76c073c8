"""The base model: where it is, what shape it has, quantised to NF4, with a LoRA adapter on it."""

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import NotAllowedError, SettingsError, UnreachableError
from trainer.settings import Settings, publishable_uri
from trainer.storage import fetch
from trainer.storage.disk import sha256_of
from trainer.storage.failures import Failure, retry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.device import Device, Precision

log = logging.getLogger(__name__)

BUILTIN = Path(__file__).parent / "builtin"
CONFIG_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "README.md"]  # and tokenizer; small
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]  # never a pickle


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
    """A base model on local disk. `name` and `revision` are what may be published."""

    folder: Path
    name: str
    revision: str
    is_from_hub: bool = False

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)

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
        into = settings.scratch_dir / "base"
        fetched = fetch(name, into, retry_minutes=settings.storage_retry_minutes)
        if not any(f.name == "config.json" for f in fetched):
            raise SettingsError(
                f"{name}: no config.json there; name the prefix that holds the model"
            )
        return _local(into, publishable_uri(name))
    if Path(name).is_dir():
        return _local(Path(name), Path(name).resolve().name)
    if name.startswith((".", "/", "~")):
        raise SettingsError(f"QLORA_BASE_MODEL={name}: no such folder")
    folder = _from_hub(settings, CONFIG_FILES)
    # The hub's cache names a snapshot's folder by its commit.
    return Base(folder, name, revision=folder.name, is_from_hub=True)


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
    if base.is_from_hub:
        its_own = replace(settings, base_model=base.name, base_revision=base.revision)
        _from_hub(its_own, WEIGHT_FILES)
    index = base.folder / "model.safetensors.index.json"
    if index.is_file():  # some folders hold the same weights once more in a file of their maker's
        names = set(json.loads(index.read_text())["weight_map"].values())
        files = sorted(base.folder / name for name in names)
    else:
        files = sorted(base.folder.glob("*.safetensors"))
    if not files:
        raise SettingsError(
            f"{base.name}: no .safetensors weights there; pickled weights are never read"
        )
    return files


def load(base: Base, settings: Settings, precision: "Precision", device: "Device") -> Any:
    """The base model, its linear layers quantised to NF4 with double quantisation, frozen.

    Embedding, head and norms stay in the compute dtype: the usual cast to float32 costs 0.5 GiB
    on a 7B model and slows each step.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    weights(base, settings)
    model = AutoModelForCausalLM.from_pretrained(
        base.folder,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision.dtype,
        ),
        dtype=precision.dtype,
        device_map={"": device.kind if device.kind == "cpu" else 0},
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.config.use_cache = False
    model.requires_grad_(False)
    return model


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


def _local(folder: Path, name: str) -> Base:
    """A model in a folder; its revision is the digest of its config and weights."""
    config = folder / "config.json"
    if not config.is_file():
        raise SettingsError(f"{name}: no config.json there; name the folder that holds the model")
    try:
        json.loads(config.read_text())
    except ValueError as error:
        raise SettingsError(f"{name}: its config.json is not JSON ({error})") from None
    import hashlib

    digest = hashlib.sha256()
    for path in [config, *sorted(folder.glob("*.safetensors"))]:
        digest.update(sha256_of(path).encode())
    return Base(folder, name, f"sha256:{digest.hexdigest()[:16]}")


def _from_hub(settings: Settings, patterns: list[str]) -> Path:
    """The local snapshot of a hub model, with the files that match `patterns`."""
    from huggingface_hub import snapshot_download

    def download() -> Path:
        return Path(
            snapshot_download(
                settings.base_model, revision=settings.base_revision, allow_patterns=patterns
            )
        )

    return retry(
        download,
        lambda error: _hub_failure(error, settings),
        where=settings.base_model,
        minutes=settings.storage_retry_minutes,
    )


def _hub_failure(error: Exception, settings: Settings) -> Failure | None:
    """What an exception of the hub client means; None for one that is not the hub's."""
    import httpx2
    from huggingface_hub import errors as hub

    page = f"https://huggingface.co/{settings.base_model}"
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, hub.GatedRepoError):
        return Failure(NotAllowedError, "is gated", f"accept its terms at {page} and set HF_TOKEN")
    if isinstance(error, hub.RevisionNotFoundError):
        fact = f"has no revision {settings.base_revision!r}"
        return Failure(SettingsError, fact, f"set QLORA_BASE_REVISION to one listed at {page}")
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 403):
        fact = "the hub knows no such model, or it is private"
        return Failure(NotAllowedError, fact, f"check the name at {page} or set HF_TOKEN")
    if isinstance(error, hub.HFValidationError):
        step = "set QLORA_BASE_MODEL to owner/name, a folder or an s3:// prefix"
        return Failure(SettingsError, "is no model id", step)
    if isinstance(error, hub.OfflineModeIsEnabled):
        step = "unset HF_HUB_OFFLINE or fill the cache at HF_HOME first"
        return Failure(UnreachableError, "is not in the cache and the hub is switched off", step)
    if isinstance(error, httpx2.TransportError | hub.HfHubHTTPError | hub.LocalEntryNotFoundError):
        fact = f"the hub did not answer ({type(error).__name__}{f' {status}' if status else ''})"
        step = "check the network, or set QLORA_BASE_MODEL to a folder or an s3:// prefix"
        return Failure(UnreachableError, fact, step, passing=status in (0, 429) or status >= 500)
    return None
