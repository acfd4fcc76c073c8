"""A fine-tuned model that answers questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer import adapters, device, model
from trainer.errors import DataError
from trainer.evaluate import compute_precision
from trainer.prompts import question_ids, stop_ids
from trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def load_bot(where: str, settings: Settings, base_model: str | None) -> Bot:
    """The adapter at `where` on its base, as `adapters.find` finds them, ready to answer."""
    from peft import PeftModel

    adapter = adapters.find(where, settings, base_model)
    found = device.find_device()
    precision = device.choose_precision(settings.precision, found)
    base = model.load(adapter.base, settings, precision, found)
    return Bot(PeftModel.from_pretrained(base, adapter.folder).eval(), adapter.tokenizer())
