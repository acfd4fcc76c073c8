"""Clients of `ask --serve` at once: tokens/s beside one after the other, by OpenAI's own client.

    python bench/serving.py MODEL [--clients 8] [--tokens 64]       a model in a folder

The server answers in this process with an adapter r=8 on q and v that does nothing yet; each client
asks questions of its own, streamed, greedy. `right` is the share of answers that are the model's
own when it is asked alone. Then one of them goes away in the middle, and it is measured how long
its row goes on.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent)]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch

QUESTIONS = [
    "What is the capital of France?",
    "Name three birds.",
    "How do I boil an egg?",
    "What is 12 times 12?",
    "Write a sentence about the sea.",
    "Why is the sky blue?",
    "What is a compiler?",
    "Tell me about the moon.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    from openai import OpenAI

    from trainer.commands.serve import Server
    from trainer.inference.chat_model import Manner, load_chat_models
    from trainer.settings import Settings

    os.environ["QLORA_SCRATCH_DIR"] = tempfile.mkdtemp()
    settings = Settings.read({}, os.environ, trains=False)
    folder = str(Path(given.model).resolve())
    models = load_chat_models({"bot": adapter_of(folder)}, settings, folder)
    server = Server(models, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OpenAI(base_url=f"http://localhost:{server.server_port}/v1", api_key="any")
    questions = [f"{QUESTIONS[n % len(QUESTIONS)]}" for n in range(given.clients)]
    bot = models["bot"]
    own = ["".join(bot.answer(q, Manner(most=given.tokens)).pieces()) for q in questions]

    def ask(number: int, found: dict[int, tuple[str, int]]) -> None:
        parts = client.chat.completions.create(
            model="bot",
            messages=[{"role": "user", "content": questions[number]}],
            max_tokens=given.tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, tokens = "", 0
        for part in parts:
            text += "".join(choice.delta.content or "" for choice in part.choices)
            tokens = part.usage.completion_tokens if part.usage else tokens
        found[number] = text, tokens

    for together in (False, True, False, True):
        found: dict[int, tuple[str, int]] = {}
        threads = [
            threading.Thread(target=ask, args=(number, found)) for number in range(len(questions))
        ]
        begin, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
            if not together:
                thread.join()
        for thread in threads:
            thread.join()
        seconds, used = time.perf_counter() - begin, time.process_time() - used
        tokens = sum(count for _, count in found.values())
        right = sum(found[number][0] == text for number, text in enumerate(own)) / len(own)
        row = {"clients": len(own) if together else 1, "tokens": tokens, "right": right}
        row |= {"tokens_per_s": round(tokens / seconds, 1), "seconds": round(seconds, 2)}
        print(json.dumps(row | {"tokens_per_cpu_s": round(tokens / used, 1)}), flush=True)
    print(json.dumps({"goes on after its client has gone, s": gone(client, server)}), flush=True)
    server.finish()
    os._exit(0)


def gone(client: Any, server: Any) -> float:
    """Seconds until the row of a client that goes away is free."""
    parts = client.chat.completions.create(
        model="bot",
        messages=[{"role": "user", "content": "Count from one to a thousand, one number a line."}],
        max_tokens=2000,
        stream=True,
    )
    for _ in range(5):
        next(parts)
    parts.close()
    begin, line = time.perf_counter(), server.admission._line
    while line._value != server.limits.waiting:
        time.sleep(0.001)
    return round(time.perf_counter() - begin, 3)


def adapter_of(folder: str) -> str:
    """A folder in peft's layout, whose adapter adds nothing."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = Path(tempfile.mkdtemp()) / "adapter"
    config = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    return str(made.parent)


if __name__ == "__main__":
    main()
