"""The gate: an adapter with a planted fault is rejected with the reason, and kept for a look."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.jobs import published, run_command, run_here, write_records

from trainer.dataset import pipeline
from trainer.errors import DataError, RejectedError
from trainer.evaluation import compare
from trainer.models import adapter_files, adapters
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import stop_ids

Plant = Callable[[pytest.MonkeyPatch], None]
RUN = "planted"


def edit_weights(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    path = folder / "adapter_model.safetensors"
    weights = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file({n: t.clone() for n, t in weights.items()}, path, {"format": "pt"})


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def nan(name: str, tensor: torch.Tensor) -> torch.Tensor:
    spoilt = tensor.clone()
    spoilt[0, 0] = float("nan") if "layers.2" in name else tensor[0, 0]
    return spoilt


def half_rank(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:4] if "lora_A" in name else tensor[:, :4]


def cut_off(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_rank(folder: Path) -> None:
    """Sound in itself: peft would load it."""
    edit_weights(folder, half_rank)
    edit_config(folder, r=4, lora_alpha=8)


def written(damage: Callable[[Path], None]) -> Plant:
    """The files of the adapter are damaged after they are written."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        save = adapter_files.save_adapter

        def save_and_damage(model: Any, tokenizer: Any, base: Any, folder: Path) -> None:
            save(model, tokenizer, base, folder)
            damage(folder)

        patch.setattr(adapter_files, "save_adapter", save_and_damage)

    return plant


def worse_loss(patch: pytest.MonkeyPatch) -> None:
    """The adapter pushes the other way from what it learnt."""
    judge = compare.compare

    def negate_and_judge(model: Any, *arguments: Any, **more: Any) -> compare.Evaluation:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data *= -4
        return judge(model, *arguments, **more)

    patch.setattr(compare, "compare", negate_and_judge)


def ends_masked(patch: pytest.MonkeyPatch) -> None:
    """What a collator does that masks padding where padding and end are one token."""
    prepare = pipeline.prepare

    def prepare_without_ends(*given: Any) -> pipeline.Data:
        made = prepare(*given)
        blocks = list(made.train)
        for block in blocks:
            block.labels[torch.isin(torch.from_numpy(block.labels), torch.tensor(ends))] = -100
        return dataclasses.replace(made, train=blocks)

    ends = stop_ids(_tokenizer())
    patch.setattr(pipeline, "prepare", prepare_without_ends)


def _tokenizer() -> Any:
    from trainer.models.locate import locate_base
    from trainer.settings import Settings

    return locate_base(Settings.read({"base_model": "builtin:tiny"}, {}, trains=False)).tokenizer()


PLANTS: dict[str, tuple[Plant, str]] = {
    "NaN tensor": (
        written(lambda folder: edit_weights(folder, nan)),
        r"4 of 16 tensors: \S+layers\.2\S+ holds NaN",
    ),
    "zeros": (
        written(lambda folder: edit_weights(folder, lambda _, tensor: 0 * tensor)),
        "is zero and changes nothing",
    ),
    "wrong base": (
        written(lambda folder: edit_config(folder, revision="sha256:0123456789abcdef")),
        "names the base builtin:tiny at sha256:0123456789abcdef, but it was trained on",
    ),
    "worse loss": (
        worse_loss,
        r"its loss on trained data is \d+\.\d+, the base model's \d+\.\d+, and",
    ),
    "missing end": (ends_masked, "no token that ends an answer was trained"),
    "truncated file": (written(cut_off), "adapter_model.safetensors is cut off or damaged"),
    "wrong dtype": (
        written(lambda folder: edit_weights(folder, lambda _, tensor: tensor.half())),
        r"is torch\.float16 and not torch\.float32",
    ),
    "other rank": (written(other_rank), "is 4 x 256 and not 8 x 256: another rank"),
    "other values": (
        written(lambda folder: edit_weights(folder, lambda _, tensor: 3 * tensor)),
        r"loaded again it has a loss of \d+\.\d+ and not",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All plants share a scratch folder: the first trains, the others go on from its end."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patching:
        yield patching


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_rejected_with_its_reason_and_kept(
    name: str, folder: Path, patch: pytest.MonkeyPatch
) -> None:
    plant, reason = PLANTS[name]
    plant(patch)
    with pytest.raises(RejectedError, match=reason) as caught:
        run_here(folder, RUN_ID=RUN)
    assert caught.value.exit_code == 14
    kept = folder / "out" / RUN / "rejected"
    assert str(kept) in str(caught.value)
    record = json.loads((kept / "run.json").read_text())
    assert len(record["rejected"]) == 1
    assert "; ".join(record["rejected"]) in str(caught.value)
    assert "Rejected" in (kept / "report.html").read_text()
    assert "rejected" in (kept / "adapter" / "README.md").read_text()
    assert not (kept.parent / "manifest.json").exists()
    assert not (folder / "out" / "latest.json").exists()
    elsewhere = Settings.read({}, {"QLORA_SCRATCH_DIR": str(folder / "scratch")}, trains=False)
    with pytest.raises(DataError, match=r"adapter was rejected, .* nevertheless, name .*rejected"):
        adapters.find_adapter(str(kept.parent), elsewhere)


def test_a_sound_adapter_is_published_after_that_and_nothing_rejected_is_left(folder: Path) -> None:
    run = run_here(folder, RUN_ID=RUN)
    assert json.loads((run / "run.json").read_text())["rejected"] == []
    assert not [name for name in published(run) if name.startswith("rejected/")]


def test_the_command_ends_with_14_and_another_limit_lets_the_same_adapter_pass(
    tmp_path: Path,
) -> None:
    strict = run_command(tmp_path, RUN_ID=RUN, MAX_LOSS_RATIO="0.1")
    assert strict.returncode == 14
    assert strict.stderr.startswith(f"error: the adapter of run {RUN} was rejected: its loss on")
    run = tmp_path / "out" / RUN
    weights = (run / "rejected" / "adapter" / "adapter_model.safetensors").read_bytes()
    done = run_command(tmp_path, RUN_ID=RUN)
    assert done.returncode == 0, done.stderr
    assert '"step": 1,' not in done.stdout
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert not (run / "rejected" / "manifest.json").exists()


def test_answers_that_are_all_cut_are_found_before_training(tmp_path: Path) -> None:
    long = [{"question": f"What is {n}?", "answer": "word " * 200} for n in range(20)]
    write_records(tmp_path / "data" / "long.jsonl", long)
    done = run_command(tmp_path)
    assert done.returncode == 10
    assert "cut before its end at QLORA_MAX_LENGTH=64" in done.stderr


def test_an_adapter_that_moved_nothing_is_published_only_where_that_is_wanted(
    tmp_path: Path,
) -> None:
    with pytest.raises(RejectedError, match="it learned nothing: its loss on trained data is"):
        run_here(tmp_path, LEARNING_RATE="1e-5")
    run = run_here(tmp_path, LEARNING_RATE="1e-5", MAX_LOSS_RATIO="1")
    assert json.loads((run / "run.json").read_text())["rejected"] == []


def test_prose_is_not_judged_by_where_its_documents_end(tmp_path: Path) -> None:
    """A few steps on a few documents lower the loss and never teach that."""
    (tmp_path / "data").mkdir()
    for n in range(24):
        text = f"The workshop opens at {n % 12 + 1}. " * 12 + f"It is building number {n}."
        (tmp_path / "data" / f"{n}.txt").write_text(text)
    run = run_here(tmp_path, MAX_STEPS="8")
    record = json.loads((run / "run.json").read_text())
    assert record["rejected"] == []
    assert record["evaluation"]["tuned"]["loss"] < record["evaluation"]["base"]["loss"]


def test_the_record_says_what_the_schedule_was_and_why(tmp_path: Path) -> None:
    run = run_here(tmp_path, LEARNING_RATE="auto", EFFECTIVE_BATCH_SIZE="auto")
    schedule = json.loads((run / "run.json").read_text())["schedule"]
    blocks_a_step, rate = schedule["reasons"]
    assert blocks_a_step.startswith(f"{schedule['step_blocks']} block")
    assert rate.startswith(f"a peak learning rate of {schedule['learning_rate']:g}: ")
    card = (run / "adapter" / "README.md").read_text()
    assert f"steps of {schedule['step_blocks']} blocks, peak learning rate" in card


def test_one_document_alone_is_published_without_an_end(tmp_path: Path) -> None:
    """Its end is held out, so that no token which ends anything is trained."""
    words = "\n\n".join(f"Drawer {n} of the workshop holds {n * 7} screws." for n in range(150))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "drawers.txt").write_text(words, encoding="utf-8")
    run = run_here(tmp_path, MAX_STEPS="12", LEARNING_RATE="5e-3")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["rejected"] == []
    assert record["evaluation"]["tuned"]["loss"] < record["evaluation"]["base"]["loss"]
