"""What `plan` says of models that people use on a T4, from their sizes; `--write`: into the docs.

Nothing is fetched: the configs are written here. Layers of the base that go to host memory are
planned with what is free on the machine that runs this.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from trainer.commands.plan import PlanRequest, plan_run
from trainer.errors import JobError
from trainer.settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "measurements" / "0024-models.md"
BEGIN, END = "<!-- plans: made by scripts/plan_table.py -->\n", "<!-- end of plans -->"
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
COLUMNS = {"engine": "trains by", "memory": "memory", "micro-batch": "a time", "speed": "tokens/s"}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FULL, WINDOW = "full_attention", "sliding_attention"

# Name: model type, SIZES, and what else decides.
MODELS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "Llama 3.2 3B": ("llama", (3072, 8192, 28, 24, 8, 128, 128256),
        {"tie_word_embeddings": True, "rope_parameters": LLAMA_3}),
    "Llama 3.1 8B": ("llama", (4096, 14336, 32, 32, 8, 128, 128256), {"rope_parameters": LLAMA_3}),
    "Qwen 2.5 7B": ("qwen2", (3584, 18944, 28, 28, 4, 128, 152064), {"use_sliding_window": False}),
    "Qwen 3 4B": ("qwen3", (2560, 9728, 36, 32, 8, 128, 151936), {"tie_word_embeddings": True}),
    "Qwen 3 8B": ("qwen3", (4096, 12288, 36, 32, 8, 128, 151936), {}),
    "Mistral 7B v0.3": ("mistral", (4096, 14336, 32, 32, 8, 128, 32768), {"sliding_window": None}),
    "Mistral Nemo 12B": ("mistral", (5120, 14336, 40, 32, 8, 128, 131072),
        {"sliding_window": None}),
    "SmolLM3 3B": ("smollm3", (2048, 11008, 36, 16, 4, 128, 128256), {"tie_word_embeddings": True}),
    "Gemma 3 4B, text": ("gemma3_text", (2560, 10240, 34, 8, 4, 256, 262208),
        {"sliding_window": 1024, "query_pre_attn_scalar": 256}),
    "Phi-4 14B": ("phi3", (5120, 17920, 40, 40, 10, 128, 100352),
        {"pad_token_id": 0, "max_position_embeddings": 16384, "sliding_window": None}),
    "gpt-oss 20B": ("gpt_oss", (2880, 2880, 24, 64, 8, 64, 201088),
        {"num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
         "layer_types": [WINDOW, FULL] * 12}),
    "Qwen 3 30B-A3B": ("qwen3_moe", (2048, 6144, 48, 32, 4, 128, 151936),
        {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}),
}  # fmt: skip


def table() -> str:
    """One Markdown row for each model."""
    head = f"| model | {' | '.join(COLUMNS.values())} |\n|{'---|' * (1 + len(COLUMNS))}\n"
    return head + "".join(f"| {name} | {' | '.join(planned(name))} |\n" for name in MODELS)


def planned(name: str) -> list[str]:
    """What `plan --gpu t4` says of a model, or why it does not fit."""
    from transformers import AutoConfig

    kind, sizes, more = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        usual = {"max_position_embeddings": 32768} | dict(zip(SIZES, sizes, strict=True))
        config = AutoConfig.for_model(kind, **(usual | more))
        config.save_pretrained(folder)
        assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == kind
        settings = Settings.read(
            {"base_model": folder, "target_modules": "all-linear"}, {}, trains=False
        )
        try:
            lines = plan_run(settings, PlanRequest(gpu="t4")).splitlines()
        except JobError as error:
            return ["", str(error).replace(folder, "it"), "", ""]
    found = dict(line.split(maxsplit=1) for line in lines)
    found["speed"] = found["speed"].partition(" tokens/s")[0]
    found["micro-batch"] = found["micro-batch"].partition(",")[0]
    found["engine"] = found["engine"].partition(", in the place")[0]
    found["memory"] = found["memory"].replace(" predicted", "")
    return [found[column] for column in COLUMNS]


def filled(page: str) -> str:
    """`page` with its table replaced by the present one."""
    found = re.escape(BEGIN) + ".*?" + re.escape(END)
    return re.sub(found, lambda _: BEGIN + table() + END, page, flags=re.DOTALL)


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
