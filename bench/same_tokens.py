"""Are our answers transformers' to the token? In float32 on a CPU, for every family of the engine.

    python bench/same_tokens.py [--questions 200] [--families llama qwen3]

Each family is a small random model in NF4 with an adapter on all linear layers (the models of
tests/support/small_models.py). Prompts have 1 to 80 tokens of their own, every third behind a
beginning of 40 that it shares with others; seven tokens end an answer, at the latest the 48th. Both
answer with the adapter and without, ours with fewer rows than questions.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

VOCABULARY, MOST, ROWS = 331, 48, 37
ENDS = [5, 77, 123, 200, 202, 300, 330]


def main() -> None:
    from support.small_models import CONFIGS  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--families", nargs="+", default=list(CONFIGS))
    given = parser.parse_args()
    prompts = ragged(given.questions)
    equal = asked = 0
    for family in given.families:
        for row in compared(family, prompts):
            equal += row.get("same", 0)
            asked += given.questions if "same" in row else 0
            print(json.dumps({"family": family} | row), flush=True)
    print(json.dumps({"same": equal, "of": asked}))


def ragged(count: int) -> list[list[int]]:
    noise = random.Random(7)
    shared = [noise.randrange(VOCABULARY) for _ in range(40)]
    own = [[noise.randrange(VOCABULARY) for _ in range(noise.randint(1, 80))] for _ in range(count)]
    return [prompt if number % 3 else [*shared, *prompt] for number, prompt in enumerate(own)]


def compared(family: str, prompts: list[list[int]]) -> Any:
    from support.small_models import tuned_model

    from trainer.engine.greedy_decoder import GreedyDecoder, why_not
    from trainer.inference.stock_decoder import StockDecoder

    with tempfile.TemporaryDirectory() as folder:
        model = tuned_model(family, Path(folder), "all-linear").eval()
    if (reason := why_not(model)) is not None:
        yield {"by transformers": reason}
        return
    own, stock = GreedyDecoder(model, ENDS), StockDecoder(model, ENDS, 0)
    for tuned in (True, False):
        found, seconds = [], []
        for decoder in (own, stock):
            begin = time.process_time()
            found.append(dict(decoder.answers(prompts, MOST, tuned=tuned, most_rows=ROWS)))
            seconds.append(round(time.process_time() - begin, 1))
        ours, theirs = found
        parted = [number for number in range(len(prompts)) if ours[number] != theirs[number]]
        ended = sum(answer[-1] in ENDS for answer in theirs.values())
        row: dict[str, Any] = {
            "adapter": tuned,
            "same": len(prompts) - len(parted),
            "ended by a token": ended,
        }
        lengths = [len(answer) for answer in theirs.values()]
        row |= {"tokens": sum(lengths), "cpu s": seconds}
        if parted:
            row["parted"] = [[number, first(ours[number], theirs[number])] for number in parted]
        yield row


def first(ours: list[int], theirs: list[int]) -> int:
    """The token from which two answers are different."""
    pairs = zip(ours, theirs, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


if __name__ == "__main__":
    main()
