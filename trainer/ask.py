"""A fine-tuned model that answers questions."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import device, model
from trainer.errors import DataError, SettingsError
from trainer.evaluate import compute_precision
from trainer.prompts import question_ids, stop_ids
from trainer.settings import Settings
from trainer.storage import fetch_verified, open_store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MOST_ANSWER_TOKENS = 512


@dataclass(frozen=True)
class Bot:
    """A base model with an adapter, ready to answer."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"

    def stream(self, question: str) -> Iterator[str]:
        """The greedy answer to `question`, piece by piece as it is generated."""
        import threading

        import torch
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        ids = torch.tensor([question_ids(self.tokenizer, question)], device=self.model.device)
        room = self.model.config.get_text_config().max_position_embeddings - ids.shape[1]
        if room < 1:
            raise DataError(
                f"the question has {ids.shape[1]} tokens, more than the model reads; shorten it"
            )

        failures: list[BaseException] = []

        def generate() -> None:
            try:
                answer()
            except BaseException as error:
                failures.append(error)
            finally:
                streamer.end()

        def answer() -> None:
            with torch.no_grad(), compute_precision(self.model):
                self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=min(room, MOST_ANSWER_TOKENS),
                    do_sample=False,
                    use_cache=True,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=stop_ids(self.tokenizer),
                    streamer=streamer,
                )

        worker = threading.Thread(target=generate, daemon=True)
        worker.start()
        yield from streamer
        worker.join()  # an interpreter that ends while it computes aborts
        if failures:
            raise failures[0]


def load_bot(adapter: str, settings: Settings, base_model: str | None) -> Bot:
    """The model behind `adapter`: a run or its adapter folder, local or `s3://`.

    The base is the one that the adapter names, unless `base_model` names another. Raises
    DataError when there is no adapter, SettingsError when its base cannot be found by name.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    folder = _bring(adapter, settings)
    config = json.loads((folder / "adapter_config.json").read_text())
    trained_on, revision = config["base_model_name_or_path"], config["revision"]
    base = _base_of(trained_on, revision, settings, base_model)
    if base.revision != revision:
        log.warning("the adapter was trained on %s %s, not %s", trained_on, revision, base.revision)
    found = device.find_device()
    precision = device.choose_precision(settings.precision, found)
    tuned = PeftModel.from_pretrained(model.load(base, settings, precision, found), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Bot(tuned.eval(), tokenizer)


def _base_of(name: str, revision: str, settings: Settings, given: str | None) -> model.Base:
    if given:
        return model.locate(replace(settings, base_model=given))
    if "/" not in name and not name.startswith("builtin:"):
        raise SettingsError(
            f"the adapter was trained on a model in a folder named {name!r}; "
            "say where it is with --base-model"
        )
    return model.locate(replace(settings, base_model=name, base_revision=revision))


def _bring(adapter: str, settings: Settings) -> Path:
    """The local folder that holds the adapter's files, verified when they come from a bucket."""
    run = adapter.rstrip("/").removesuffix("/adapter")
    if "://" not in adapter:
        for folder in (Path(adapter), Path(run) / "adapter"):
            if (folder / "adapter_config.json").is_file():
                return folder
        raise DataError(
            f"{adapter}: no adapter_config.json there; name a run or its adapter folder"
        )
    uri, _, name = run.rpartition("/")
    into = settings.scratch_dir / "adapters" / name
    store = open_store(uri, retry_minutes=settings.storage_retry_minutes)
    fetch_verified(store, name, into, only_prefix="adapter/")
    return into / "adapter"
