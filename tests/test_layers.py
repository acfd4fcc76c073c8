"""The rooms import only what stands above them on this list, so each can be read alone."""

import ast
from pathlib import Path

import pytest

TRAINER = Path(__file__).parent.parent / "trainer"
ROOMS = [
    "errors",
    "lean",
    "memory",
    "settings",
    "redaction",
    "log",
    "stopping",
    "lifeline",
    "workers",
    "storage",
    "corpus",
    "wordwise",
    "prompts",
    "cuts",
    "sequences",
    "shelf",
    "shelving",
    "portions",
    "blocks",
    "device",
    "kernels",
    "plan",
    "planner",
    "crew",
    "sharding",
    "engine",
    "batches",
    "selftest",
    "hub",
    "bases",
    "weights",
    "base_cache",
    "model",
    "metrics",
    "progress",
    "lease",
    "checkpoints",
    "publication",
    "losses",
    "answers",
    "evaluate",
    "acceptance",
    "heldout",
    "rows",
    "tracking",
    "shares",
    "train",
    "identity",
    "data",
    "charts",
    "remarks",
    "style",
    "report",
    "card",
    "artifacts",
    "adapters",
    "tensors",
    "ask",
    "judge",
    "conversation",
    "serve",
    "questions",
    "merge",
    "export",
    "outlook",
    "job",
    "cli",
    "launch",
]


def room_of(path: Path) -> str:
    return path.relative_to(TRAINER).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "trainer":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainer."):
            rooms.add((node.module or "").split(".")[1])
    return rooms & set(ROOMS)


@pytest.mark.parametrize(
    "path",
    sorted(p for p in TRAINER.rglob("*.py") if p.name != "__init__.py"),
    ids=lambda path: str(path.relative_to(TRAINER)),
)
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"give {room} its place in ROOMS"
    below = {other for other in imported_rooms(path) if ROOMS.index(other) > ROOMS.index(room)}
    assert not below


def test_only_storage_knows_boto3() -> None:
    users = {room_of(p) for p in TRAINER.rglob("*.py") if "import boto" in p.read_text()}
    assert users <= {"storage"}
