"""A fine-tuned model that answers questions."""

import contextlib
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.inference.as_merged import compute_as_merged
from trainer.inference.precision import compute_precision
from trainer.models import adapters, load
from trainer.runtime import device, lean_imports
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import question_ids, stop_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MAX_CHAT_ANSWER_TOKENS = 512  # a person who reads along can end an answer at any time


@dataclass(frozen=True)
class ChatModel:
    """A base model with an adapter, ready to answer one question at a time."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    base: str

    def stream(
        self,
        question: str,
        *,
        tuned: bool = True,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> Generator[str, None, None]:
        """The greedy answer, piece by piece as it is generated; the base's own if not `tuned`.

        Closing it ends the generation, and so does `is_ended`, which is asked after each token.
        Raises DataError for a question that is too long.
        """
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
        closed = threading.Event()

        def generate() -> None:
            try:
                with contextlib.nullcontext() if tuned else self.model.disable_adapter():
                    self._generate(
                        ids,
                        min(room, MAX_CHAT_ANSWER_TOKENS),
                        streamer,
                        lambda: closed.is_set() or is_ended(),
                    )
            except BaseException as error:
                failures.append(error)
            finally:
                streamer.end()

        worker = threading.Thread(target=generate, daemon=True)
        worker.start()
        try:
            yield from filter(None, streamer)
        finally:
            closed.set()
            worker.join()  # an interpreter that ends while it computes aborts
        if failures:
            raise failures[0]

    def _generate(
        self, ids: "Tensor", max_new_tokens: int, streamer: Any, is_ended: Callable[[], bool]
    ) -> None:
        import torch

        def stop(_ids: "Tensor", _scores: "Tensor", **_: Any) -> "Tensor":
            return torch.tensor([is_ended()], device=ids.device)

        with torch.no_grad(), compute_precision(self.model):
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=stop_ids(self.tokenizer),
                stopping_criteria=[stop],
                streamer=streamer,
            )


def load_chat_model(
    where: str, settings: Settings, base_model: str | None, form: str = "nf4"
) -> ChatModel:
    """The adapter at `where` on its base, as `find_adapter` finds them, ready to answer.

    `form` is "nf4", as it was trained, "16bit" for the base in its own weights, or "merged", which
    computes as what `merge` writes.
    """
    lean_imports.import_bitsandbytes()
    from peft import PeftModel

    lean_imports.collect_as_usual()
    adapter = adapters.find_adapter(where, settings, base_model)
    found = device.find_device()
    precision = device.choose_precision(settings.precision, found)
    loaded = load.load_16bit if form == "16bit" else load.load_base
    base = loaded(adapter.base, settings, precision, found)
    tuned = PeftModel.from_pretrained(base, adapter.folder).eval()
    if form == "merged":
        compute_as_merged(tuned, adapter.base.stored_dtype())
    return ChatModel(tuned, adapter.tokenizer(), adapter.base.name)
