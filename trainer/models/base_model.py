"""A base model: its config, its tokenizer, its shape, and how many parameters are trained on it."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import Interrupted, SettingsError
from trainer.models import architecture
from trainer.models.config_sizes import bounded
from trainer.models.experts import experts_of_a_token
from trainer.models.residual_stream import is_wide
from trainer.models.tokenizer_files import load_tokenizer
from trainer.planner.memory_plan import FULL, HALF
from trainer.planner.model_shape import (
    ModelShape,
    attention_heads,
    head_size,
    key_value_heads,
    mixed_values,
    widest,
)
from trainer.runtime.json_records import read_object
from trainer.runtime.log import one_line
from trainer.setting_checks import ALL_LINEAR
from trainer.settings import RECIPES, Settings
from trainer.storage import Stored

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

NO_WRITER = r"For(MaskedLM|\w*Classification|QuestionAnswering|PreTraining)$"


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
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            _check_quantisation(config)
            return config
        except ValueError as error:
            raise SettingsError(f"{self.name}: {self._why_unknown(error)}") from error
        except Exception as error:  # of values that its class does not take
            raise self._no_model(error) from error

    def _no_model(self, error: Exception) -> SettingsError:
        return SettingsError(
            f"{self.name}: its config.json describes no model ({_first_words(error)}); bring the "
            "model there again or choose another QLORA_BASE_MODEL"
        )

    def _why_unknown(self, error: ValueError) -> str:
        config = read_object(self.folder / "config.json")
        if "auto_map" in config:
            fact = "needs code of its own, which is never run"
        else:
            kind = config.get("model_type", "a model of no type")
            fact = f"{kind!r} is no model that transformers knows ({str(error).split('.')[0]})"
        return f"{fact}; choose another QLORA_BASE_MODEL"

    @property
    def is_here(self) -> bool:
        """Whether its weights are on this machine already, as far as anybody has said so."""
        return not (self.is_from_hub or self.bucket_uri)

    @property
    def is_quantised(self) -> bool:
        """Whether the weights on disk are: 4 bits are made here, from 16."""
        return getattr(self.config, "quantization_config", None) is not None

    def stored_dtype(self) -> "torch.dtype":
        """Of the weights on disk, as its config names it."""
        import torch

        return self.config.get_text_config().dtype or torch.float32

    @cached_property
    def skeleton(self) -> Any:
        """The model without memory behind its weights: its module names and sizes."""
        kind = architecture.model_class(self.config)
        named = self._named_class
        if kind is None or re.search(NO_WRITER, named):
            raise SettingsError(
                f"{self.name}: {named or self.config.model_type} is no model that continues text; "
                "choose another QLORA_BASE_MODEL"
            )
        return self._without_memory(kind)

    @property
    def _named_class(self) -> str:
        """As its config names it; empty where it does not."""
        return str((getattr(self.config, "architectures", None) or [""])[0])

    def _without_memory(self, kind: Any, **options: Any) -> Any:
        import torch

        try:
            with torch.device("meta"), bounded():
                # An attention of its own would be looked for on the hub, as code.
                return kind.from_config(
                    self.config, trust_remote_code=False, attn_implementation="eager", **options
                )
        except Exception as error:  # no heads, odd sizes: whatever its modules raise
            raise self._no_model(error) from error

    def empty(self, dtype: "torch.dtype") -> Any:
        """A model of its class in `dtype`, without memory, that may be changed."""
        return self._without_memory(architecture.model_class(self.config), dtype=dtype)

    @cached_property
    def named_skeleton(self) -> Any:
        """The same of the class that its config names, where that is another one: the whole of a
        vision-language model whose language model has a class of its own. None elsewhere."""
        import torch
        import transformers

        named = self._named_class
        kind = getattr(transformers, named, None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            return None  # transformers has other names too
        if kind is type(self.skeleton):
            return None
        if type(self.config) is type(self.skeleton.config):  # no part of it, but all
            return None
        try:
            with torch.device("meta"), bounded():
                return kind(self.config)
        except Exception as error:  # as of `_without_memory`
            raise self._no_model(error) from error

    @property
    def attention(self) -> str:
        """torch's fused attention, but for models that cap the scores inside of it."""
        return "sdpa" if self.skeleton._supports_sdpa else "eager"

    @cached_property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Every layer that is quantised: name to (in, out) features."""
        found = architecture.linear_layers(self.skeleton)
        return {name: (layer.in_features, layer.out_features) for name, layer in found.items()}

    @property
    def _ties_embeddings(self) -> bool:
        """Some vision-language models say it for the whole, others for the text."""
        configs = self.config.get_text_config(), self.config
        return any(getattr(config, "tie_word_embeddings", False) for config in configs)

    def shape(self, precision: str = "") -> ModelShape:
        """Its sizes; with a `precision`, as it is trained in that."""
        text = self.config.get_text_config()
        linear = sum(rows * columns for rows, columns in self.linear_layers.values())
        every = sum(p.numel() for p in self.skeleton.parameters())
        heads = attention_heads(text)
        ends = text.vocab_size * text.hidden_size
        # Those that somebody else has quantised are taken for 16 bits: how they did is not known.
        counted = not self.is_quantised
        experts, active = architecture.expert_parameters(self.skeleton) if counted else (0, 0)
        mixed, mixing = mixed_values(text)
        of_a_token = experts_of_a_token(text) if experts else 0
        return ModelShape(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=self._intermediate(of_a_token),
            vocabulary=text.vocab_size,
            heads=heads,
            q=heads * head_size(text),
            kv=key_value_heads(text) * head_size(text),
            largest_matrix=max(rows * columns for rows, columns in self.linear_layers.values()),
            linear_parameters=linear,
            embedding_parameters=ends if self._ties_embeddings else 2 * ends,
            other_parameters=every - linear - experts,
            expert_parameters=experts,
            active_parameters=active,
            experts_of_a_token=of_a_token,
            normed_outputs=architecture.normed_outputs(self.skeleton),
            normed_heads=architecture.normed_heads(self.skeleton),
            mixed=mixed,
            mixing=mixing,
            whole_scores=self.attention == "eager",
            stream_bytes=FULL if is_wide(self.config, precision) else HALF,
        )

    def _intermediate(self, experts: int) -> int:
        """Values between the two products of a feed-forward network, or of a token's `experts`."""
        text = self.config.get_text_config()
        dense = widest(text, "intermediate_size") or 4 * text.hidden_size
        routed = experts * (widest(text, "moe_intermediate_size") or 0)
        is_mixed = any(name.endswith(".mlp.down_proj") for name in self.linear_layers)
        return max(dense, routed) if is_mixed else routed or dense

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer, with a pad token."""
        try:
            tokenizer = load_tokenizer(self.folder)
        except Interrupted:
            raise
        except Exception as error:  # tokenizers raises nothing narrower
            raise SettingsError(
                f"{self.name}: its tokenizer cannot be read ({_first_words(error)}); put "
                "tokenizer.json or tokenizer.model beside its config.json"
            ) from error
        if tokenizer.eos_token_id is None:
            raise SettingsError(
                f"{self.name}: its tokenizer has no end token; choose another QLORA_BASE_MODEL"
            )
        if tokenizer.pad_token_id is None:
            # Padding is masked by position here, so sharing a token with the end costs nothing.
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        return tokenizer


def _check_quantisation(config: Any) -> None:
    """Raises whatever transformers raises for figures of bitsandbytes that are none: it would when
    the weights are loaded."""
    from transformers.quantizers import AutoQuantizationConfig

    stored = getattr(config, "quantization_config", None)
    if isinstance(stored, dict) and stored.get("quant_method") in (None, "bitsandbytes"):
        try:
            AutoQuantizationConfig.from_dict(dict(stored))
        except ValueError as error:
            raise TypeError(str(error)) from error  # that of the model's type is another


def check_settings(base: Base, settings: Settings) -> None:
    """Faults that only the base model's config can show, all at once. Raises SettingsError."""
    faults = []
    stored = getattr(base.config, "quantization_config", None)
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    if method not in (None, "bitsandbytes"):
        faults.append(
            f"QLORA_BASE_MODEL={base.name}: its weights are quantised already, with {method}; name "
            "the 16-bit model that they were made from"
        )
    longest = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    if longest and settings.max_length > longest:
        faults.append(
            f"QLORA_MAX_LENGTH={settings.max_length}: {base.name} reads at most {longest} tokens"
        )
    known = architecture.REFUSED.get(base.config.model_type)
    if known:
        faults.append(f"QLORA_BASE_MODEL={base.name}: {known}")
    elif not base.linear_layers:
        faults.append(
            f"QLORA_BASE_MODEL={base.name}: it has no linear layers that NF4 and an adapter could "
            "be put on; name a model of another family, such as Llama, Mistral or Qwen"
        )
    elif settings.target_modules != (ALL_LINEAR,):
        layers = architecture.adaptable_layers(base.skeleton)
        real = sorted({layer.rpartition(".")[2] for layer in layers})
        wrong = [name for name in settings.target_modules if name not in real]
        if wrong:
            faults.append(
                f"QLORA_TARGET_MODULES={','.join(wrong)}{_of_recipe(settings)}: not in "
                f"{base.name}, which has {', '.join(real)} (or {ALL_LINEAR})"
            )
    if faults:
        raise SettingsError("; ".join(faults))


def _of_recipe(settings: Settings) -> str:
    """Who has set the target modules, where it was not the user."""
    recipe = RECIPES[settings.recipe].get("target_modules")
    return f" (of QLORA_RECIPE={settings.recipe})" if recipe else ""


def target_modules(settings: Settings) -> tuple[str, ...] | None:
    """The names of the layers that get an adapter; None for all."""
    return None if settings.target_modules == (ALL_LINEAR,) else settings.target_modules


def trainable_parameters(base: Base, settings: Settings) -> int:
    """Parameters of the adapter: r (in + out) for each layer it is on."""
    chosen = architecture.chosen_layers(base.skeleton, target_modules(settings))
    return sum(settings.lora_r * sum(base.linear_layers[name]) for name in chosen)


def _first_words(error: Exception, most: int = 160) -> str:
    return one_line(error, most) or type(error).__name__
