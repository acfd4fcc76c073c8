"""The adapter's model card: `README.md` with the hub's metadata, curves and how to load it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.reporting.html_report import read_from
from trainer.runtime.log import one_line

if TYPE_CHECKING:
    from trainer.models.base_model import Base

CURVES = "curves.png"
SHOWN = 3
_SCORES = (
    ("loss", "loss on held-out data", ".4f"),
    ("perplexity", "perplexity", ",.2f"),
    ("exact", "exact answers", ".0%"),
    ("f1", "token F1", ".0%"),
    ("stopped", "answers that stop by themselves", ".0%"),
)
_LOADING = """\
```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

adapter = "{adapter}"
nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float16,
)
base = AutoModelForCausalLM.from_pretrained(
    {base}, quantization_config=nf4
)
model = PeftModel.from_pretrained(base, adapter)
tokenizer = AutoTokenizer.from_pretrained(adapter)

asked = [{{"role": "user", "content": "Your question"}}]
inputs = tokenizer.apply_chat_template(
    asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**inputs.to(model.device), max_new_tokens=200)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def render_card(record: dict[str, Any], base: "Base") -> str:
    """`record` is `run.json`."""
    return "\n".join(
        [
            f"---\n{_metadata(record, base)}\n---",
            f"\n# {record['run_id']}\n",
            f"A LoRA adapter for `{base.name}` (revision `{base.revision}`), trained on the base "
            "quantised to 4-bit NF4.\n",
            *[f"**This adapter was rejected:** {fault}.\n" for fault in record["rejected"]],
            f"![Loss, learning rate, tokens/s and memory by optimizer step]({CURVES})\n",
            *_results(record),
            *_samples(record),
            "## Data\n",
            *_data(record),
            "\n## How to load it\n",
            _loading(record, base),
            "\n## Training\n",
            *_training(record),
            "\n## Limits\n",
            *_limits(record, base),
            "",
        ]
    )


def base_card(folder: Path) -> dict[str, Any]:
    """The metadata of the base model's own card; empty where it has none."""
    from huggingface_hub import metadata_load

    try:
        found = metadata_load(folder / "README.md")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _metadata(record: dict[str, Any], base: "Base") -> str:
    """Only what the hub accepts: its `base_model` is the id of a model there."""
    from huggingface_hub import ModelCardData

    known = base_card(base.folder)
    on_hub: dict[str, Any] = {"base_model": base.name, "base_model_relation": "adapter"}
    licence = {n: known[n] for n in ("license", "license_name", "license_link") if n in known}
    data = ModelCardData(
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "qlora", *([f"base_model:adapter:{base.name}"] if base.is_from_hub else [])],
        **(on_hub if base.is_from_hub else {}),
        **licence,
    )
    return str(data.to_yaml())


def _results(record: dict[str, Any]) -> list[str]:
    scores = record["evaluation"]
    base, tuned = scores["base"], scores["tuned"]
    rows = [
        f"| {words} | {format(base[name], form)} | {format(tuned[name], form)} |"
        for name, words, form in _SCORES
        if base[name] is not None and tuned[name] is not None
    ]
    if not rows:
        return ["Nothing was held out: how good it is was not measured.\n"]
    about = f"On {scores['questions']:,} held-out questions" if scores["questions"] else "On text"
    return [
        "## Results\n",
        f"{about} that training has not seen:\n",
        "| | base | with this adapter |\n|---|---|---|",
        *rows,
        "",
    ]


def _samples(record: dict[str, Any]) -> list[str]:
    rows = [
        "| " + " | ".join(_cell(row[n]) for n in ("question", "reference", "base", "tuned")) + " |"
        for row in record["samples"][:SHOWN]
    ]
    head = "| question | expected | base | with this adapter |\n|---|---|---|---|"
    return [head, *rows, ""] if rows else []


def _data(record: dict[str, Any]) -> list[str]:
    data = record["data"]
    return [
        f"- {read_from(data)}",
        f"- {data['tokens']:,} tokens, {data['trained_tokens']:,} of them trained, in "
        f"{data['blocks']:,} blocks of {record['settings']['max_length']} tokens",
        f"- {data['held_out']:,} records or documents held out for the results above",
    ]


def _loading(record: dict[str, Any], base: "Base") -> str:
    served = base.name if base.is_from_hub else f"<folder of {base.name}>"
    where = f'"{base.name}", revision="{base.revision}"' if base.is_from_hub else f'"{served}"'
    return (
        _LOADING.format(adapter="<this folder>", base=where)
        + "\n\nThe chat template of the training is saved with the tokenizer. With vLLM:\n\n"
        + f"```sh\nvllm serve {served} --enable-lora --max-lora-rank {_rank(record)} "
        + "--lora-modules tuned=<this folder>\n```"
    )


def _rank(record: dict[str, Any]) -> int:
    """vLLM knows some ranks only."""
    return next((r for r in (8, 16, 32, 64, 128, 256) if r >= record["settings"]["lora_r"]), 320)


def _training(record: dict[str, Any]) -> list[str]:
    settings, training, parameters = record["settings"], record["training"], record["parameters"]
    modules = ", ".join(settings["target_modules"])
    return [
        f"- rank {settings['lora_r']}, alpha {settings['lora_alpha']}, dropout "
        f"{settings['lora_dropout']} on {modules}: {parameters['trainable']:,} parameters, "
        f"{parameters['trainable_percent']} % of the model's {parameters['total']:,}",
        f"- {training['steps']:,} steps of {settings['effective_batch_size']} blocks, peak "
        f"learning rate {settings['learning_rate']:g}, {settings['scheduler']} schedule, seed "
        f"{settings['seed']}",
        f"- {record['precision']['name']} on {record['device']['name']}",
    ]


def _limits(record: dict[str, Any], base: "Base") -> list[str]:
    licence = base_card(base.folder).get("license_name") or base_card(base.folder).get("license")
    about = (
        f"The licence of the base model, {licence}, applies."
        if licence
        else "The licence of the base model applies; it is not recorded here."
    )
    return [
        "- It knows what its training data says, and can be wrong about that and about everything "
        "else.",
        f"- It was trained on texts of up to {record['settings']['max_length']} tokens.",
        "- It works with this base model at this revision only.",
        f"- {about}",
    ]


def _cell(text: str, most: int = 120) -> str:
    return one_line(text.replace("|", "\\|"), most, ending="…")
