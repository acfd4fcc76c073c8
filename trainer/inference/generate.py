"""A model's greedy answers to many questions, as many together as memory allows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.dataset.eval_questions import Question
from trainer.inference.precision import compute_precision
from trainer.planner.model_shape import head_size, key_value_heads
from trainer.runtime.device import out_of_memory
from trainer.tokenization.record_tokenizer import question_ids, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_REFERENCE_ANSWER_TOKENS = 256  # a question that has a reference is answered no longer
MIN_KV_CACHE_TOKENS = 4096  # 2 GiB of keys and values for Llama-2-7B in 16 bits


@dataclass(frozen=True)
class Reply:
    """A generated answer; `stopped` says whether the model ended it by itself.

    `ids` are its tokens behind those of the question, `prompt_ids`, with the one that ended it.
    """

    text: str
    stopped: bool
    prompt_ids: tuple[int, ...] = field(repr=False, default=())
    ids: tuple[int, ...] = field(repr=False, default=())


def answer_questions(
    model: Any, tokenizer: "PreTrainedTokenizerBase", questions: Sequence[Question]
) -> list[Reply]:
    """Greedy answers to `questions`, at most twice as long as the longest reference."""
    references = [len(tokenizer(q.answer).input_ids) for q in questions]
    longest = min(max(references, default=0) * 2 + 8, MAX_REFERENCE_ANSWER_TOKENS)
    return generate_replies(model, tokenizer, [q.question for q in questions], longest)


def generate_replies(
    model: Any, tokenizer: "PreTrainedTokenizerBase", questions: Sequence[str], max_new_tokens: int
) -> list[Reply]:
    """Greedy answers of at most `max_new_tokens` tokens, in the order of the questions.

    Raises RuntimeError (out of memory) where not even one fits.
    """
    import torch

    prompts = [question_ids(tokenizer, question) for question in questions]
    longest = max(map(len, prompts), default=0) + max_new_tokens
    batch_size = max(1, _kv_cache_tokens(model) // longest)
    replies: list[Reply] = []
    while len(replies) < len(prompts):
        batch = prompts[len(replies) :][:batch_size]
        try:
            replies += _generate(model, tokenizer, batch, max_new_tokens)
            continue
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
        batch_size = len(batch) // 2
        torch.cuda.empty_cache()
    return replies


def _kv_cache_tokens(model: Any) -> int:
    """How many tokens' keys and values fit in half of the GPU memory that is free: a step of a 7B
    model takes about as long for forty answers as for ten."""
    import torch

    if model.device.type == "cpu":
        return MIN_KV_CACHE_TOKENS
    text = model.config.get_text_config()
    token_bytes = 2 * 2 * text.num_hidden_layers * key_value_heads(text) * head_size(text)
    device_free, total = torch.cuda.mem_get_info()
    cap = torch.cuda.get_per_process_memory_fraction() * total
    free = float(min(device_free, cap - torch.cuda.memory_reserved()))
    return max(MIN_KV_CACHE_TOKENS, int(free / 2 / token_bytes))


def _generate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[Reply]:
    """Answers to prompts of token ids, which are padded on the left."""
    import torch

    ends, longest = stop_ids(tokenizer), max(map(len, prompts))
    ids_BT = [[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts]
    mask_BT = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    with torch.no_grad(), compute_precision(model):
        out_BT = model.generate(
            input_ids=torch.tensor(ids_BT, device=model.device),
            attention_mask=torch.tensor(mask_BT, device=model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=ends,
        )
    return [
        _reply(tokenizer, prompt, row[longest:].tolist(), ends)
        for prompt, row in zip(prompts, out_BT, strict=True)
    ]


def _reply(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[int], ids: list[int], ends: list[int]
) -> Reply:
    length = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:length], skip_special_tokens=True))
    return Reply(text.strip(), length < len(ids), tuple(prompt), tuple(ids[: length + 1]))
