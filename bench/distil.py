"""Learning from itself: prompt distillation beside plain training on the same pairs, in one run.

    python bench/distil.py BASE --places 60 --seeds 3   a small instruction model, on a GPU; minutes
    python bench/distil.py BASE --places 2 --passes 5   on a CPU; ten minutes on free cores

The facts of bench/facts.py, four wordings to train on and a fifth to judge by; what is said of a
place is its passage. The teacher is the base itself, the adapter off, with the passage in view. The
student, the adapter on and nothing in view, is trained on the teacher's distribution over each
token of the answer (Kullback-Leibler divergence) instead of on the token alone. Both start from
the same adapter, see the same pairs in the same order and take the same steps.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from facts import ENDS, STARTS, write_facts  # noqa: E402

from trainer.corpus.examples import Conversation, Message  # noqa: E402
from trainer.dataset.eval_questions import Question  # noqa: E402
from trainer.dataset.passages import Passage  # noqa: E402
from trainer.evaluation.compare import Scores, compare  # noqa: E402
from trainer.evaluation.retrieval import PassageIndex, compare_with_passages, prompt  # noqa: E402
from trainer.inference.precision import compute_precision  # noqa: E402
from trainer.models import load  # noqa: E402
from trainer.models.locate import locate_base  # noqa: E402
from trainer.runtime.device import choose_precision, find_device  # noqa: E402
from trainer.settings import Settings  # noqa: E402
from trainer.tokenization.encode import encode, ids_of, trained  # noqa: E402
from trainer.tokenization.record_tokenizer import RecordTokenizer, question_ids  # noqa: E402

PAIRS = 32  # in a step, as four full blocks have
PLACES = {start + end for start in STARTS for end in ENDS}
COLUMNS = ("told", "exact", "contains", "F1", "general text", "seconds")


@dataclass(frozen=True)
class Pair:
    """A question and its answer as tokens; `given` without the passage, `shown` with it."""

    given: list[int]
    shown: list[int]
    answer: list[int]
    teacher_AV: torch.Tensor | None = None
    """log-probabilities of the teacher at each token of the answer"""


Loss = Callable[[torch.Tensor, Pair], torch.Tensor]


def plain(logits_AV: torch.Tensor, pair: Pair) -> torch.Tensor:
    target = torch.tensor(pair.answer, device=logits_AV.device)
    return torch.nn.functional.cross_entropy(logits_AV, target)


def distilled(logits_AV: torch.Tensor, pair: Pair) -> torch.Tensor:
    assert pair.teacher_AV is not None
    teacher_AV = pair.teacher_AV.to(logits_AV.device).float()
    return torch.nn.functional.kl_div(
        logits_AV.log_softmax(-1), teacher_AV, log_target=True, reduction="batchmean"
    )


def both(logits_AV: torch.Tensor, pair: Pair) -> torch.Tensor:
    return (plain(logits_AV, pair) + distilled(logits_AV, pair)) / 2


ROWS: dict[str, Loss] = {"plain": plain, "distilled": distilled, "half of each": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="what QLORA_BASE_MODEL is set to")
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    print(f"| row | seed | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 2)}|")
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run_seed(Path(folder), seed, arguments)


def run_seed(folder: Path, seed: int, arguments: argparse.Namespace) -> None:
    data = write_facts(folder / "facts", seed, arguments.places)
    train, held = (read(data / part / "facts.jsonl") for part in ("train", "held"))
    passages = passages_of(train)
    model, tokenizer = model_of(arguments.base, folder, seed)
    pairs = with_teacher(model, [pair_of(q, passages, tokenizer) for q in train])
    fresh = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    began = time.monotonic()
    base = compare(model, tokenizer, [], held)
    seen = compare_with_passages(model, tokenizer, base, PassageIndex([*passages.values()]))
    assert seen.with_passages is not None
    print(row("base", seed, base.base, time.monotonic() - began), flush=True)
    print(row("base, passages in view", seed, seen.with_passages.base, 0.0), flush=True)
    for name in arguments.rows:
        with torch.no_grad():
            for parameter, start in fresh.items():
                model.get_parameter(parameter).copy_(start)
        seconds = fit(model, pairs, ROWS[name], arguments, seed)
        found = compare(model, tokenizer, [], held, base=base.base)
        print(row(name, seed, found.tuned, seconds), flush=True)


def read(path: Path) -> list[Question]:
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Question(record["question"], record["answer"]) for record in records]


def place_of(text: str) -> str:
    return next(place for place in PLACES if place in text)


def passages_of(questions: Sequence[Question]) -> dict[str, Passage]:
    """What is said of each place, by its name: each answer once."""
    said: dict[str, dict[str, None]] = {}
    for question in questions:
        said.setdefault(place_of(question.answer), {})[question.answer] = None
    return {
        place: Passage(" ".join(answers), f"{place}.md", place) for place, answers in said.items()
    }


def model_of(name: str, scratch: Path, seed: int) -> tuple[Any, Any]:
    """As a run with `QLORA_RECIPE=facts` has it before its first step."""
    told = {"BASE_MODEL": name, "SCRATCH_DIR": str(scratch), "RECIPE": "facts", "SEED": str(seed)}
    settings = Settings.read({}, {f"QLORA_{k}": v for k, v in told.items()}, trains=False)
    base, device = locate_base(settings), find_device()
    precision = choose_precision("auto", device)
    model = load.attach_adapter(load.load_base(base, settings, precision, device), settings)
    return model, base.tokenizer()


def pair_of(question: Question, passages: dict[str, Passage], tokenizer: Any) -> Pair:
    record = Conversation(
        (Message("user", question.question), Message("assistant", question.answer))
    )
    (sequence,) = encode([record], RecordTokenizer(tokenizer), 512)[0].sequences
    first = int(np.argmax(sequence >= 0))
    ids = [int(number) for number in ids_of(sequence)]
    answer = ids[first : first + trained(sequence)]
    shown = prompt(question.question, [passages[place_of(question.question)]])
    return Pair(ids[:first], question_ids(tokenizer, shown), answer)


def logits_of(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> list[torch.Tensor]:
    """[A, V] of each: of the tokens of its answer, each behind what is before it; float32."""
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(map(len, rows))
    # What pads a row is behind its end, where nothing that counts looks at it.
    ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    with compute_precision(model):
        logits_BTV = model(input_ids=ids_BT.to(model.device)).logits
    return [
        logits_TV[len(prompt) - 1 : len(row) - 1].float()
        for logits_TV, prompt, row in zip(logits_BTV, prompts, rows, strict=True)
    ]


def with_teacher(model: Any, pairs: Sequence[Pair]) -> list[Pair]:
    model.eval()
    found = []
    for first in range(0, len(pairs), PAIRS):
        some = pairs[first : first + PAIRS]
        with torch.no_grad(), model.disable_adapter():
            each = logits_of(model, [p.shown for p in some], [p.answer for p in some])
        found += [
            replace(pair, teacher_AV=logits_AV.log_softmax(-1).half().cpu())
            for pair, logits_AV in zip(some, each, strict=True)
        ]
    return found


def fit(
    model: Any, pairs: Sequence[Pair], loss_of: Loss, arguments: argparse.Namespace, seed: int
) -> float:
    """Train the adapter in place; the seconds that it took."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    steps = arguments.passes * -(-len(pairs) // PAIRS)
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=steps, pct_start=0.05
    )
    shuffled, began = random.Random(seed), time.monotonic()
    torch.manual_seed(seed)
    model.train()
    for _ in range(arguments.passes):
        order = shuffled.sample(pairs, len(pairs))
        for first in range(0, len(order), PAIRS):
            step = order[first : first + PAIRS]
            each = logits_of(model, [p.given for p in step], [p.answer for p in step])
            losses = [loss_of(logits, pair) for logits, pair in zip(each, step, strict=True)]
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return time.monotonic() - began


def row(name: str, seed: int, scores: Scores, seconds: float) -> str:
    shares = (scores.told, scores.exact, scores.contained, scores.f1)
    cells = [f"{share:.1%}" for share in shares]
    general = "-" if scores.general_text is None else f"{scores.general_text:.3f}"
    return f"| {name} | {seed} | {' | '.join([*cells, general, f'{seconds:.0f}'])} |"


if __name__ == "__main__":
    main()
