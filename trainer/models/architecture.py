"""What transformers makes of a config: its class, what of it is quantised, what can carry LoRA."""

import re
from collections.abc import Collection
from typing import Any

from trainer.models.experts import expert_layouts, experts_of_a_token, is_experts
from trainer.runtime import lean_imports

# Layers that send a token to experts, or weigh what comes back: LoRA would change who is asked.
ROUTERS = ("gate", "wg", "router", "modality_router", "shared_expert_gate")

ALTUP = "its AltUp layers change their weights in place, which 4 bits forbid; use Gemma 3"
MAMBA = "a state-space model without attention (Mamba) is not trained here; use Granite 4"
LLAMA_4 = "the experts of llama4 cannot be trained here; use Llama 3"

# What is known to train wrongly, by model type: the fact, and what would work.
REFUSED = {
    "gemma3n": ALTUP,
    "gemma3n_text": ALTUP,
    "recurrent_gemma": "it caps its logits, which the loss here would leave out; use Gemma 3",
    "mamba": MAMBA,
    "mamba2": MAMBA,
    "falcon_mamba": MAMBA,
    "rwkv": "a recurrent model without attention (RWKV) is not trained here; use Granite 4",
    "llama4": LLAMA_4,
    "llama4_text": LLAMA_4,
    "mllama": "its layers that look at an image (mllama) have none in a text; use Llama 3.1",
}


def model_class(config: Any) -> Any:
    """The Auto class of a model that continues text; None where transformers has none.

    A vision-language model that has no class for its language model alone is taken whole.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    if type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM
    decodes = not getattr(config, "is_encoder_decoder", False)
    if decodes and type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    return None


def language_model(model: Any) -> str:
    """The name of the part of `model` that reads text, with its dot; empty where that is all."""
    text = model.config.get_text_config(decoder=True)
    if text is model.config:
        return ""
    return next(
        (
            f"{name}."
            for name, module in model.named_modules()
            if name and type(getattr(module, "config", None)) is type(text)
        ),
        "",
    )


def linear_layers(model: Any) -> dict[str, Any]:
    """The modules that bitsandbytes quantises, or has quantised: those that are exactly linear
    layers, without the head. A subclass stays in 16 bits."""
    lean_imports.import_bitsandbytes()
    import torch
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    kinds = torch.nn.Linear, Linear4bit
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) in kinds and module is not head
    }


def adaptable_layers(model: Any) -> list[str]:
    """Those of them that an adapter may be put on: of the language model, no router, no expert,
    nothing that peft takes for an expert, and not the end of a Mamba layer, whose kernels take the
    weight and not the layer."""
    modules, inside = dict(model.named_modules()), language_model(model)
    left_out = {*ROUTERS, *_taken_for_experts(model)}

    def fits(name: str) -> bool:
        parent, _, last = name.rpartition(".")
        is_scan = last == "out_proj" and hasattr(modules[parent], "A_log")
        return (
            name.startswith(inside)
            and last not in left_out
            and ".experts." not in name
            and not is_scan
        )

    return [name for name in linear_layers(model) if fits(name)]


def unnamed_for_peft(model: Any) -> list[str]:
    """The ends of names of linear layers, of shared experts or dense ones, that get no adapter:
    peft would look for it among the experts."""
    ends = {name.rpartition(".")[2] for name in linear_layers(model) if ".experts." not in name}
    return sorted(ends & _taken_for_experts(model) - {*ROUTERS})


def _taken_for_experts(model: Any) -> set[str]:
    """Layers by whose names peft means the experts of an older layout, in which each was a layer of
    its own: a shared or a dense one of that name cannot be told to it."""
    if not any(is_experts(module) for module in model.modules()):
        return set()
    from peft.utils import transformers_weight_conversion as conversion

    kind = conversion._MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type)
    return set(conversion._MOE_TARGET_MODULE_MAPPING.get(kind, ()))


def chosen_layers(model: Any, target_modules: Collection[str] | None) -> list[str]:
    """The layers that get an adapter; None are all."""
    return [
        name
        for name in adaptable_layers(model)
        if target_modules is None or name.rpartition(".")[2] in target_modules
    ]


def peft_targets(model: Any, chosen: Collection[str]) -> list[str] | str:
    """`chosen` in peft's words: the ends of their names, where those name nothing else, or else a
    pattern of the whole names."""
    ends = {name.rpartition(".")[2] for name in chosen}
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    return sorted(ends) if named == set(chosen) else pattern_of(chosen)


def pattern_of(names: Collection[str]) -> str:
    """A pattern that matches `names` whole; their numbers, those of layers, may be any."""
    parts = [name.split(".") for name in names]
    return "|".join(
        sorted(
            {r"\.".join(r"\d+" if p.isdigit() else re.escape(p) for p in name) for name in parts}
        )
    )


def expert_parameters(model: Any) -> tuple[int, int]:
    """Parameters of experts that become NF4: all of them, and those that one token is sent to."""
    layouts = expert_layouts(model).values()
    most = experts_of_a_token(model.config.get_text_config(decoder=True))
    return (
        sum(layout.values for layout in layouts),
        sum(min(most, one.experts) * one.values // one.experts for one in layouts),
    )


def normed_outputs(model: Any) -> int:
    """How many outputs of a layer a norm follows, before they join the residual stream."""
    behind = (".post_feedforward_layernorm", ".post_mlp_layernorm")
    return 2 * any(name.endswith(behind) for name, _ in model.named_modules())


def normed_heads(model: Any) -> int:
    """Whether queries and keys pass a norm before they attend: 1 or 0."""
    return int(any(name.endswith(".q_norm") for name, _ in model.named_modules()))


def decoder_name(model: Any) -> str:
    """The name of the module that the decoder's layers are in."""
    decoder = model.get_decoder()
    found: str = next(name for name, module in model.named_modules() if module is decoder)
    return found
