"""A base model: its config, its tokenizer, its shape, and how many parameters are trained on it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import SettingsError
from trainer.models.tokenizer_files import load_tokenizer
from trainer.planner.model_shape import ModelShape, head_size, key_value_heads
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
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except ValueError as error:
            raise SettingsError(f"{self.name}: {self._why_unknown(error)}") from error

    def _why_unknown(self, error: ValueError) -> str:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in config:
            fact = "needs code of its own, which is never run"
        else:
            kind = config.get("model_type", "a model of no type")
            fact = f"{kind!r} is no model that transformers knows ({str(error).split('.')[0]})"
        return f"{fact}; choose another QLORA_BASE_MODEL"

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
        import torch
        from transformers import AutoModelForCausalLM

        architectures = getattr(self.config, "architectures", None) or [""]
        try:
            with torch.device("meta"):
                made = AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)
        except ValueError:  # transformers lists every model it has
            made = None
        if made is None or re.search(NO_WRITER, architectures[0]):
            raise SettingsError(
                f"{self.name}: {architectures[0] or self.config.model_type} is no model that "
                "continues text; choose another QLORA_BASE_MODEL"
            )
        return made

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

    def shape(self) -> ModelShape:
        text = self.config.get_text_config()
        linear = sum(rows * columns for rows, columns in self.linear_layers.values())
        every = sum(p.numel() for p in self.skeleton.parameters())
        heads = text.num_attention_heads
        ends = text.vocab_size * text.hidden_size
        return ModelShape(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            vocabulary=text.vocab_size,
            heads=heads,
            q=heads * head_size(text),
            kv=key_value_heads(text) * head_size(text),
            largest_matrix=max(rows * columns for rows, columns in self.linear_layers.values()),
            linear_parameters=linear,
            embedding_parameters=ends if text.tie_word_embeddings else 2 * ends,
            other_parameters=every - linear,
        )

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer, with a pad token."""
        try:
            tokenizer = load_tokenizer(self.folder)
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
    if not base.linear_layers:
        faults.append(
            f"QLORA_BASE_MODEL={base.name}: it has no linear layers that NF4 and an adapter could "
            "be put on; name a model of another family, such as Llama, Mistral or Qwen"
        )
    elif settings.target_modules != (ALL_LINEAR,):
        real = sorted({layer.rpartition(".")[2] for layer in base.linear_layers})
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


def trainable_parameters(base: Base, settings: Settings) -> int:
    """Parameters of the adapter: r (in + out) for each layer it is on."""
    everywhere = settings.target_modules == (ALL_LINEAR,)
    return sum(
        settings.lora_r * (rows + columns)
        for name, (rows, columns) in base.linear_layers.items()
        if everywhere or name.rpartition(".")[2] in settings.target_modules
    )


def _first_words(error: Exception, most: int = 160) -> str:
    return one_line(error, most) or type(error).__name__
