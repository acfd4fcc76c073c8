"""Prose for token caches, what they hold, and how to spoil them."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from support.jobs import ROOT
from trainer.dataset import pipeline
from trainer.dataset.inputs import fetch_inputs
from trainer.dataset.packing import Block
from trainer.settings import Settings
from trainer.tokenization.chat_template import ensure_chat_template

WORDS = (ROOT / "examples/data/handbook").glob("*.md")


VOCABULARY = sorted({word for path in WORDS for word in path.read_text().split()})


def prose(seed: int, paragraphs: int = 20) -> str:
    chance = random.Random(seed)
    return "\n\n".join(" ".join(chance.choices(VOCABULARY, k=60)) for _ in range(paragraphs))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "trainer/builtin/tiny")
    ensure_chat_template(tokenizer)
    return tokenizer


def write_prose(folder: Path, count: int, **more: str) -> None:
    (folder / "data").mkdir()
    for n in range(count):
        (folder / "data" / f"{n:03}.md").write_text(prose(n))
    for name, text in more.items():
        (folder / "data" / f"{name}.txt").write_text(text)


def content(found: pipeline.Data) -> list[bytes]:
    return columns(found.train) + columns(found.held_out)


def columns(blocks: Iterable[Block]) -> list[bytes]:
    return [column.tobytes() for block in blocks for column in vars(block).values()]


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def settings_of(folder: Path, **changes: str) -> Settings:
    """Of a run on `folder`/data in blocks of 64 tokens."""
    given = {"DATA_URI": str(folder / "data"), "OUTPUT_URI": str(folder / "out")}
    given |= {"SCRATCH_DIR": str(folder / "scratch"), "MAX_LENGTH": "64"} | changes
    return Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})


def prepare(folder: Path, tokenizer: Any, **changes: str) -> pipeline.Data:
    """The blocks of what lies in `folder`/data."""
    settings = settings_of(folder, **changes)
    return pipeline.prepare(settings, fetch_inputs(settings), tokenizer)
