"""What only a GPU can show: the engine's passes and graphs, sums in float64, whole runs.

python -m pytest -m cuda        all of it, with the kernels and the loader, in a few minutes
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.architectures import write_checkpoint
from support.jobs import (
    STEPS,
    adapter_bytes,
    only_run,
    run_command,
    run_here,
    start,
    wait_for_step,
    write_records,
)
from support.plain_attention import PlainAttention
from support.small_models import CONFIGS, packed_batch, trainable, tuned_model
from support.sweep import WITHOUT_DROPOUT
from support.worker_processes import ends, start_workers, steps
from support.worker_processes import wait_for_step as wait_for_line

from trainer.dataset.collate import collate_for_engine, documents
from trainer.dataset.packing import Block
from trainer.distributed.data_parallel import GradientAccumulator
from trainer.distributed.workers import Workers
from trainer.engine.decode_rows import DecodeRows
from trainer.engine.decoder import Engine
from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.inference.stock_decoder import StockDecoder
from trainer.kernels._triton import next_power_of_2
from trainer.kernels.attention import Cudnn, Documents, Flash, MemoryEfficient
from trainer.models.locate import BUILTIN
from trainer.planner.decoding_plan import DecodingPlan
from trainer.planner.gpus import multiplies_unasked
from trainer.planner.memory_plan import MemoryPlan
from trainer.training.validation import HeldOutLoss

ROWS, ROW, LAYERS = 2, 48, 3
STORED = MemoryPlan(LAYERS)
PLANS = {
    "stored": STORED,
    "graph": replace(STORED, graph=True),
    "unpacked": replace(STORED, unpacked_layers=2, graph=True),
    "half": MemoryPlan(1),
    "recomputed": MemoryPlan(0, mlp_rows=40, logit_rows=17),
    "offloaded": MemoryPlan(
        0, keep_attention=True, offload=True, mlp_rows=40, offload_embeddings=True
    ),
}
OTHERS = sorted(CONFIGS.keys() - {"llama", "qwen3", "qwen3_moe", "qwen3_5_text"})
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
OFF = {"fp16": 0.02, "bf16": 0.15}  # of a gradient, against float32: twice what the H200 measured

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
pytestmark = [pytest.mark.cuda, needs_gpu]
needs_ampere = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0),
    reason="no bf16 and no flash attention below compute capability 8.0",
)
PRECISIONS = ["fp16", pytest.param("bf16", marks=needs_ampere)]


@pytest.fixture(autouse=True)
def whole_memory() -> Any:
    """A test that limits memory leaves none of it limited."""
    yield
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1.0)


def micro_batch(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """Rows of three documents and of one, in turns; on the GPU, as a step is given them."""
    made = packed_batch()
    ids = torch.randint(331, (2, ROW), generator=torch.Generator().manual_seed(seed))
    made["labels"] = torch.where(made["labels"] == -100, -100, ids)
    made["input_ids"] = ids
    given = [{name: tensor[row % 2] for name, tensor in made.items()} for row in range(rows)]
    batch = collate_for_engine(given)
    return {n: t.cuda() if isinstance(t, torch.Tensor) else t for n, t in batch.items()}


def loss_of(engine: Engine, batch: dict[str, Any]) -> torch.Tensor:
    named = batch["input_ids"], batch["labels"], batch["position_ids"]
    return engine.loss_sum(*named, documents(batch))


def held_out(engine: Engine, batch: dict[str, Any]) -> torch.Tensor:
    named = batch["input_ids"], batch["labels"], batch["position_ids"]
    return engine.held_out_sum(*named, documents(batch))


def step(engine: Engine, batch: dict[str, Any], seed: int = 1) -> tuple[float, torch.Tensor]:
    """Loss and all gradients, float32 in one line, of a micro-batch with its own seed."""
    torch.manual_seed(seed)
    for parameter in engine.parameters:
        parameter.grad = None
    loss = loss_of(engine, batch)
    loss.backward()
    return float(loss.detach()), flat(p.grad for p in engine.parameters)


def flat(gradients: Any) -> torch.Tensor:
    return torch.cat([g.detach().float().flatten() for g in gradients])


def engine_of(model: Any, precision: str, plan: MemoryPlan, **more: Any) -> Engine:
    return Engine(model, dtype=DTYPES[precision], plan=plan, row_tokens=ROW, **more)


def by_name(model: Any, engine: Engine) -> dict[str, torch.Tensor]:
    """The engine's gradients under the names of the adapter's tensors."""
    found = {}
    for parameter in engine.parameters:
        for name, view in trainable(model).items():
            at = (view.data_ptr() - parameter.data_ptr()) // view.element_size()
            if 0 <= at < parameter.numel():
                found[name] = parameter.grad.flatten()[at : at + view.numel()].view(view.shape)
    return found


# -- what is answered ---------------------------------------------------------------------


ASKED = [[(17 * n + at) % 331 for at in range(1 + 7 * n % 40)] for n in range(21)]
NEVER = [331]


def given(decoder: Any, most_rows: int = len(ASKED), *, tuned: bool = True) -> list[list[int]]:
    found = dict(decoder.answers(ASKED, 24, tuned=tuned, most_rows=most_rows))
    return [found[number] for number in range(len(ASKED))]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_answers_are_those_of_transformers(family: str, precision: str, tmp_path: Path) -> None:
    """In 16 bits two tokens may be as likely as each other; then the answers part."""
    model = tuned_model(family, tmp_path, "all-linear", precision=precision, kind="cuda").eval()
    own, stock = GreedyDecoder(model, NEVER), StockDecoder(model, NEVER, 0)
    for tuned in (True, False):
        expected = given(stock, tuned=tuned)
        for most_rows in (5, 21):
            pairs = zip(given(own, most_rows, tuned=tuned), expected, strict=True)
            assert sum(ours[:4] == theirs[:4] for ours, theirs in pairs) > 16
    own.close()


@pytest.mark.parametrize("unpacked", [0, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_captured_step_says_what_it_says_uncaptured(
    precision: str, unpacked: int, tmp_path: Path
) -> None:
    """Rows that end, that move and that begin again, and graphs of several sizes."""
    model = tuned_model("qwen2", tmp_path, "q_proj,v_proj", precision=precision, kind="cuda").eval()
    found = []
    for take_step in (DecodeRows.step, uncaptured):
        decoder = GreedyDecoder(model, [3, 50, 100, 200, 201, 202])
        decoder._made = decoder._unpacked(DecodingPlan(8, unpacked, fused_rows=4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DecodeRows, "step", take_step)
            found.append(given(decoder, 8))
    assert found[0] == found[1]


def uncaptured(rows: DecodeRows, running: int, *, tuned: bool) -> None:
    rows._step(min(rows.rows, next_power_of_2(running)), rows.length, tuned=tuned)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GreedyDecoder]:
    folder = tmp_path_factory.mktemp("answering")
    model = tuned_model("qwen2", folder, "q_proj,v_proj", precision="fp16", kind="cuda").eval()
    decoder = GreedyDecoder(model, NEVER)
    yield decoder
    decoder.close()


def said(decoder: GreedyDecoder, prompts: list[Prompt], late: int = 0) -> list[list[int]]:
    """The answers to `prompts`, the last `late` of which join after five steps."""
    running = decoder.open(len(prompts), 128, 24, tuned=True)
    assert running.rows == len(prompts)
    found: dict[int, list[int]] = {}
    numbered = list(enumerate(prompts))
    first = len(prompts) - late
    running.join(dict(numbered[:first]))
    for _ in range(5):
        running.step()
    if late:
        running.join(dict(numbered[first:]))
    while running:
        running.step()
        found |= running.take_ended()
    return [found[number] for number in range(len(prompts))]


def test_a_row_that_is_drawn_leaves_its_captured_neighbours_alone(
    answering: GreedyDecoder,
) -> None:
    """Each replay draws anew, another seed draws others, and the same seed the same."""
    greedy = [Prompt(ids, 24) for ids in ASKED]
    alone = said(answering, greedy)
    mixed = [replace(p, temperature=50.0 * (at % 3 == 1)) for at, p in enumerate(greedy)]
    found = []
    for seed in (0, 1, 2, 1):  # while the first are drawn, graphs are captured, which draws too
        torch.manual_seed(seed)
        found.append(said(answering, mixed))
    assert found[1] == found[3]
    for at, prompt in enumerate(mixed):
        drawn = [each[at] for each in found[1:3]]
        if prompt.temperature:
            assert drawn[0] != drawn[1] and min(len(set(each)) for each in drawn) > 12
        else:
            assert drawn == [alone[at]] * 2


def test_who_draws_from_the_likeliest_alone_says_what_is_likeliest(
    answering: GreedyDecoder,
) -> None:
    """Also who joins rows that are running, whose graph did not draw before."""
    greedy = [Prompt(ids, 24) for ids in ASKED]
    surely = [replace(p, temperature=0.7, top_p=0.0) for p in greedy[-7:]]
    expected = said(answering, greedy, late=7)
    pairs = zip(said(answering, [*greedy[:-7], *surely], late=7), expected, strict=True)
    assert sum(ours == theirs for ours, theirs in pairs) >= 20  # two may be as likely


def test_captured_rows_have_limits_of_their_own(answering: GreedyDecoder) -> None:
    limits = [1 + (7 * at) % 24 for at in range(len(ASKED))]
    limited = [Prompt(ids, most) for ids, most in zip(ASKED, limits, strict=True)]
    found = said(answering, limited, late=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodeRows, "step", uncaptured)
        assert said(answering, limited, late=4) == found
    assert [len(answer) for answer in found] == limits


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_shared_beginning_is_copied_and_the_answers_stay(precision: str, tmp_path: Path) -> None:
    """Beside transformers, which copies nothing."""
    model = tuned_model("qwen2", tmp_path, "all-linear", precision=precision, kind="cuda").eval()
    beginning = [(31 * at + 7) % 331 for at in range(70)]
    prompts = [[*beginning, *ids] for ids in ASKED]
    read, whole = [], DecodeRows._read_together

    def counted(rows: DecodeRows, readings: Any, *, tuned: bool) -> Any:
        read.extend(len(reading.rest) for reading in readings)
        return whole(rows, readings, tuned=tuned)

    own, stock = GreedyDecoder(model, NEVER), StockDecoder(model, NEVER, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodeRows, "_read_together", counted)
        found = dict(own.answers(prompts, 24, tuned=True, most_rows=21))
    expected = dict(stock.answers(prompts, 24, tuned=True, most_rows=21))
    assert sum(read) < sum(map(len, ASKED)) + 2 * 70 + 16 * 21
    assert sum(found[at][:4] == expected[at][:4] for at in range(21)) > 16
    own.close()


# -- what is computed ---------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "plan"),
    [*product(["llama", "qwen3"], PLANS), *product(OTHERS, ["graph", "recomputed"])],
)
def test_gradients_are_those_of_float32_on_a_cpu(
    family: str, plan: str, precision: str, tmp_path: Path
) -> None:
    truth_model = tuned_model(family, tmp_path / "truth", "all-linear")
    truth = packed_batch()
    truth["input_ids"].clamp_(min=1)  # a pad token's embedding is zero, and its norm without end
    loss = truth_model(**truth, use_cache=False).loss * truth["labels"][:, 1:].ne(-100).sum()
    expected = dict(
        zip(
            trainable(truth_model),
            torch.autograd.grad(loss, list(trainable(truth_model).values())),
            strict=True,
        )
    )
    model = tuned_model(family, tmp_path / "here", "all-linear", precision=precision, kind="cuda")
    batch = collate_for_engine([{n: t[row] for n, t in truth.items()} for row in range(ROWS)])
    batch = {n: t.cuda() if isinstance(t, torch.Tensor) else t for n, t in batch.items()}
    engine = engine_of(model, precision, PLANS[plan])
    for _ in range(2):  # a graph's first pass captures, its second only replays
        found, _ = step(engine, batch)
        assert found == pytest.approx(float(loss.detach()), rel=OFF[precision])
        for name, gradient in by_name(model, engine).items():
            wanted = expected[name]
            off = (gradient.cpu() - wanted).norm() / wanted.norm()
            assert off < OFF[precision], name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "plan"),
    [
        *product(["qwen3_moe", "qwen3_5_text"], ["stored", "recomputed", "graph"]),
    ],
)
def test_a_mixture_and_a_state_are_trained_as_in_float32_on_a_cpu(
    family: str, plan: str, precision: str, tmp_path: Path
) -> None:
    """In 16 bits a token between two experts may be sent to the other, so not to the digit."""
    captured = plan == "graph" and family == "qwen3_moe"
    if captured and not multiplies_unasked(torch.cuda.get_device_capability(), precision):
        pytest.skip("the CPU has to know how many rows an expert has")
    found = {}
    for kind, name, dtype in (("cpu", "fp32", torch.float32), ("cuda", precision, None)):
        model = tuned_model(family, tmp_path / kind, "all-linear", precision=name, kind=kind)
        how = {"plan": PLANS[plan] if kind == "cuda" else STORED, "row_tokens": ROW}
        engine = Engine(model, dtype=dtype or DTYPES[precision], **how)
        batch = micro_batch()
        if kind == "cpu":
            batch = {n: t.cpu() if isinstance(t, torch.Tensor) else t for n, t in batch.items()}
        if kind == "cuda" and plan == "graph":
            step(engine, batch)  # in which it is captured
        found[kind] = step(engine, batch)
    (loss, gradient), (truth, expected) = found["cuda"], found["cpu"]
    assert loss == pytest.approx(truth, rel=2e-2)
    assert torch.cosine_similarity(gradient.cpu(), expected, dim=0) > 0.9


@pytest.mark.parametrize(
    "attention", [MemoryEfficient(), pytest.param(Flash(), marks=needs_ampere)]
)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_every_attention_gives_the_same(family: str, attention: Any, tmp_path: Path) -> None:
    """What a GPU takes by itself against the two that it may have to take."""
    model = tuned_model(family, tmp_path, "q_proj,v_proj", precision="fp16", kind="cuda")
    batch = micro_batch()
    _, expected = step(engine_of(model, "fp16", STORED), batch)
    _, found = step(engine_of(model, "fp16", STORED, attention=attention), batch)
    assert (found - expected).norm() / expected.norm() < OFF["fp16"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "attention", [MemoryEfficient(), pytest.param(Flash(), marks=needs_ampere)]
)
def test_queries_at_the_end_of_more_keys_see_all_before_them(
    attention: Any, precision: str
) -> None:
    held, rest = torch.tensor([50, 7, 100, 0]), torch.tensor([3, 1, 40, 5])
    starts, key_starts = (
        torch.cat([torch.zeros(1), of.cumsum(0)]).int().cuda() for of in (rest, held + rest)
    )
    where = Documents(starts, 40, keys=Documents(key_starts, 140))
    noise = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(tokens, heads, 64, generator=noise, device="cuda", dtype=DTYPES[precision])
        for tokens, heads in ((49, 8), (206, 2), (206, 2))
    )
    truth = PlainAttention().forward(q, k, v, where).out_MHD.double()
    found = attention.forward(q, k, v, where).out_MHD
    assert (found - truth).norm() / truth.norm() < OFF[precision] / 5


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0),
    reason="cuDNN's attention is taken from compute capability 9.0 up",
)
def test_rows_of_one_document_go_through_cudnn(tmp_path: Path) -> None:
    model = tuned_model("qwen3", tmp_path, "q_proj,v_proj", precision="fp16", kind="cuda")
    row = {n: t[1] for n, t in packed_batch().items()}  # one document
    batch = collate_for_engine([row, row])
    batch = {n: t.cuda() if isinstance(t, torch.Tensor) else t for n, t in batch.items()}
    _, expected = step(engine_of(model, "fp16", STORED, attention=MemoryEfficient()), batch)
    for plan in (STORED, PLANS["graph"]):
        engine = engine_of(model, "fp16", plan, attention=Cudnn(ROW))
        for _ in range(2):
            _, found = step(engine, batch)
            assert (found - expected).norm() / expected.norm() < OFF["fp16"]


# -- graphs, seeds and sums ---------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("plan", ["graph", "stored", "recomputed"])
def test_a_micro_batch_gives_the_same_bits_again_whatever_was_between(
    plan: str, precision: str, tmp_path: Path
) -> None:
    """Its seed alone decides its dropout and noise: not other shapes, other seeds, held-out losses
    or another engine, as after a start from a checkpoint."""
    model = tuned_model("llama", tmp_path, "all-linear", 0.2, precision=precision, kind="cuda")
    engine = engine_of(model, precision, PLANS[plan], noise_alpha=5.0)
    batch = micro_batch()
    loss, gradient = step(engine, batch)
    _, other = step(engine, batch, seed=2)
    assert not torch.equal(other, gradient)
    step(engine, micro_batch(rows=1))
    step(engine, micro_batch(rows=5, seed=4))
    columns = (micro_batch()[name].cpu() for name in ("input_ids", "labels", "position_ids"))
    blocks = [Block(*(c.numpy() for c in row)) for row in zip(*columns, strict=True)]
    state = torch.cuda.get_rng_state()
    assert HeldOutLoss(blocks, steps=1, step_blocks=1000).measure(model, engine, ROWS) > 0
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert_bits(step(engine, batch), (loss, gradient))
    another = engine_of(model, precision, PLANS[plan], noise_alpha=5.0)
    assert_bits(step(another, batch), (loss, gradient))


def assert_bits(found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor]) -> None:
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])


def test_a_graph_computes_what_the_same_plan_computes_without_one(tmp_path: Path) -> None:
    model = tuned_model("llama", tmp_path, "all-linear", 0.2, precision="fp16", kind="cuda")
    batch = micro_batch()
    loss, gradient = step(engine_of(model, "fp16", STORED), batch)
    found_loss, found = step(engine_of(model, "fp16", PLANS["graph"]), batch)
    assert found_loss == pytest.approx(loss, rel=1e-3)
    assert (found - gradient).norm() / gradient.norm() < 1e-3


def test_a_held_out_loss_by_a_graph_is_that_of_the_adapter_as_it_is_then(tmp_path: Path) -> None:
    model = tuned_model("llama", tmp_path, "all-linear", 0.2, precision="fp16", kind="cuda")
    batches = [micro_batch(), micro_batch(rows=5, seed=4), micro_batch(seed=2)]
    found: dict[str, list[float]] = {}
    for name in ("stored", "graph"):
        engine = engine_of(model, "fp16", PLANS[name])
        for factor in (1.0, 3.0, 1 / 3):
            for parameter in engine.parameters:
                parameter.data.mul_(factor)
            found.setdefault(name, []).extend(float(held_out(engine, b)) for b in batches)
        engine.close()
    assert found["graph"] == pytest.approx(found["stored"], rel=1e-4)
    assert found["stored"][3:6] != pytest.approx(found["stored"][:3], rel=1e-3)


@pytest.mark.parametrize("plan", ["stored", "graph"])
def test_the_sum_of_a_step_is_that_of_its_micro_batches(plan: str, tmp_path: Path) -> None:
    """A graph writes into the same tensors again and again; what was given is the sum's own."""
    model = tuned_model("llama", tmp_path, "all-linear", 0.2, precision="fp16", kind="cuda")
    engine = engine_of(model, "fp16", PLANS[plan])
    total = GradientAccumulator(7, Workers())
    alone: list[torch.Tensor] = []
    for number in range(3):
        total.seed_dropout(0)
        loss = loss_of(engine, micro_batch(seed=number))
        loss.backward()
        alone.append(flat(p.grad for p in engine.parameters).double())
        total.add(engine.parameters, loss.detach())
        assert all(p.grad is None for p in engine.parameters)
    total.all_reduce(engine.parameters, stop_requested=False)
    found = flat(p.grad for p in engine.parameters)
    assert all(p.grad.dtype == torch.float32 for p in engine.parameters)
    assert torch.equal(found, sum(alone[1:], alone[0]).float())


@pytest.mark.parametrize(("call", "graph"), [(1, True), (3, False)])
def test_memory_that_runs_out_leads_to_a_leaner_plan_and_the_same_step(
    call: int, graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It really runs out, while a graph is made or in a step without one: the process may take no
    more than it has, until the plan is changed."""
    compute, change, plans = Engine.loss_sum, Engine.change, []

    def loss_sum(engine: Engine, *arguments: Any) -> torch.Tensor:
        plans.append(engine.plan)
        if len(plans) == call:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        return compute(engine, *arguments)

    def changed(engine: Engine, plan: MemoryPlan) -> None:
        torch.cuda.set_per_process_memory_fraction(1.0)
        change(engine, replace(plan, graph=graph and not plans))

    monkeypatch.setattr(Engine, "loss_sum", loss_sum)
    monkeypatch.setattr(Engine, "change", changed)
    write_records(tmp_path / "data" / "many.jsonl", MANY)
    # Six large steps would teach it to go on after an answer, six small ones teach it nothing.
    gently = {"LEARNING_RATE": "1e-5", "MAX_LOSS_RATIO": "1"}
    run = run_here(tmp_path, PRECISION="fp16", MAX_LENGTH="1024", BATCH_SIZE="4", **gently)
    assert [row["step"] for row in rows_of(run)] == list(range(1, STEPS + 1))
    assert len(plans) > STEPS
    assert plans[call - 1].unpacked_layers
    assert not plans[call].unpacked_layers


# -- whole runs ---------------------------------------------------------------------------

MANY = [{"question": f"Which part is {n}?", "answer": f"HG-{n * n}"} for n in range(3000)]


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("precision", "micro"), [("fp16", "1"), pytest.param("bf16", "4", marks=needs_ampere)]
)
def test_a_killed_run_ends_in_the_same_bytes(precision: str, micro: str, tmp_path: Path) -> None:
    """The command itself, with dropout: by its own plan, which means graphs where they are used,
    with a step of several micro-batches and with one of a single one."""
    settings = {"PRECISION": precision, "BATCH_SIZE": micro, "LORA_R": "16", "MAX_STEPS": "40"}
    whole = run_command(tmp_path / "whole", **settings)
    assert whole.returncode == 0, whole.stderr
    process = start(tmp_path / "killed", **settings)
    wait_for_step(process, 11)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = run_command(tmp_path / "killed", **settings)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from checkpoint" in resumed.stdout
    runs = [only_run(tmp_path / name) for name in ("whole", "killed")]
    assert adapter_bytes(runs[0]) == adapter_bytes(runs[1])
    assert [row["loss"] for row in rows_of(runs[0])] == [row["loss"] for row in rows_of(runs[1])]
    plan = json.loads((runs[0] / "run.json").read_text())["micro_batch"]["plan"]
    assert plan["kept_layers"] == plan["unpacked_layers"] == 4
    assert plan["graph"] == (torch.cuda.get_device_capability() >= (8, 0))


@pytest.mark.parametrize("precision", [*PRECISIONS, "fp32"])
def test_the_losses_of_a_run_are_those_of_the_stock_path(precision: str, tmp_path: Path) -> None:
    """fp32 takes the stock path by itself."""
    settings = {"PRECISION": precision, "LORA_DROPOUT": "0", "BATCH_SIZE": "2"}
    ours, stock = (
        [row["loss"] for row in rows_of(run_here(tmp_path / engine, ENGINE=engine, **settings))]
        for engine in ("auto", "stock")
    )
    assert ours == pytest.approx(stock, rel=3e-2)


@pytest.mark.parametrize("engine", ["auto", "stock"])
def test_a_base_that_leaves_the_range_of_fp16_trains_in_it(engine: str, tmp_path: Path) -> None:
    base = write_checkpoint("gemma3_text", tmp_path / "base", BUILTIN / "tiny")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.post_feedforward_layernorm.weight"] += 3e4
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    settings = {"BASE_MODEL": str(base), "ENGINE": engine, **WITHOUT_DROPOUT}
    losses = [
        [row["loss"] for row in rows_of(run_here(tmp_path / p, PRECISION=p, **settings))]
        for p in ("fp16", "fp32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=3e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_worker_lost_while_a_gpu_waits_for_it_ends_all_and_costs_no_step(tmp_path: Path) -> None:
    """With the base sharded, so that each layer waits for the other worker's half of it."""
    changes = {"SHARDING": "fsdp", "MAX_STEPS": "5000", "EPOCHS": "5000"}
    workers = start_workers(tmp_path, 2, **changes)
    lines = wait_for_line(workers[0], 200)
    workers[1].kill()
    assert ends(workers) == [12, -signal.SIGKILL]  # long before NCCL would give up
    last = steps([*lines, *workers[0].stdout])[-1]

    workers = start_workers(tmp_path, 2, **changes)
    assert steps(wait_for_line(workers[0], last + 1)) == [last + 1]
    workers[1].send_signal(signal.SIGTERM)
    assert ends(workers) == [33, 33]
