"""The built-in model, loaded as a run loads it."""

from pathlib import Path
from typing import Any


def built_in_model(scratch: Path) -> tuple[Any, Any]:
    """The model, quantised to NF4, and its tokenizer."""
    from trainer.models import load
    from trainer.models.locate import locate_base
    from trainer.runtime.device import choose_precision, find_device
    from trainer.settings import Settings

    settings = Settings.read(
        {}, {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_SCRATCH_DIR": str(scratch)}, trains=False
    )
    base, device = locate_base(settings), find_device()
    loaded = load.load_base(base, settings, choose_precision("auto", device), device)
    return loaded.eval(), base.tokenizer()
