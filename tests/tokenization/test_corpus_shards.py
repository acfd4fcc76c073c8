"""Workers tokenise a corpus in shards: the same token cache, whoever made which of them."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT, adapter_bytes, variables, write_records
from support.network import unused_port
from support.token_caches import content, flip, prose, write_prose
from support.worker_processes import ONE_THREAD, SETTINGS, Processes, ends

from trainer.dataset import pipeline
from trainer.dataset.inputs import fetch_inputs
from trainer.distributed.workers import Workers
from trainer.settings import Settings
from trainer.storage import open_store, publish
from trainer.tokenization import corpus_shards, token_cache, token_cache_writer
from trainer.tokenization.corpus_shards import ShardLocation

# The job as it is, in shards of a file, which note who makes which. With SHARD_STOP the worker
# comes to that many, says so, and waits to be killed.
JOB = """
import os, sys, time
from pathlib import Path
from trainer.tokenization import corpus_shards
corpus_shards.SHARD_BYTES = 4000
rank, publish = os.environ.get("RANK", "0"), corpus_shards.CorpusShards._publish
def noted(self, number):
    notes = Path(os.environ["SHARD_NOTES"])
    (notes / f"{number}-by-{rank}").touch()
    if os.environ["SHARD_STOP"] == str(len(list(notes.glob(f"*-by-{rank}")))):
        (notes / "stopped").touch()
        time.sleep(3600)
    publish(self, number)
corpus_shards.CorpusShards._publish = noted
sys.argv[1:] = []
import runpy
runpy.run_path("entrypoint.py", run_name="__main__")
"""


def test_files_are_divided_into_shards_by_their_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_shards, "SHARD_BYTES", 10)
    shards = corpus_shards.divide_files([4, 4, 4, 50, 1, 9, 2])
    assert shards == [range(0, 3), range(3, 4), range(4, 6), range(6, 7)]
    assert corpus_shards.divide_files([3]) == [range(0, 1)]
    assert corpus_shards.divide_files([]) == [range(0, 0)]


def hard_corpus(folder: Path) -> None:
    """Copies within a shard and across, files of no use, records, some of them bad."""
    write_prose(folder, 12, copy=prose(3), twin=prose(3), broken="an odd one out " * 300)
    rows = [f"what is {n}?,{n}\n" for n in range(50)]
    (folder / "data" / "c.csv").write_text("question,answer\n" + "".join(rows) + 'never,"closed')
    write_records(folder / "data" / "a.jsonl")
    write_records(folder / "data" / "zz.jsonl")
    (folder / "data" / "b.jsonl").write_text('{"question": "x", "answer": "y"}\nno json\n')
    with (folder / "data" / "broken.txt").open("ab") as file:
        file.write("é".encode() * 200 + b"\xff\xfe\xff")
    (folder / "data" / "photo.png").write_bytes(b"\x89PNG")


def prepared(
    folder: Path,
    tokenizer: Any,
    scratch: str,
    location: ShardLocation | None,
) -> tuple[pipeline.Data, token_cache.TokenCache]:
    given = {"DATA_URI": str(folder / "data"), "OUTPUT_URI": str(folder / "out")}
    given |= {"SCRATCH_DIR": str(folder / scratch), "MAX_LENGTH": "64"}
    given |= {"MAX_SKIPPED_SHARE": "0.5"}
    settings = Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})
    found = pipeline.prepare(settings, fetch_inputs(settings), tokenizer, location)
    (index,) = (folder / scratch).glob("tokens/*/shelf.json")
    whole = token_cache.open_complete(index.parent)
    assert whole is not None
    return found, whole


def shard_location(folder: Path, scratch: str, output: str = "") -> ShardLocation:
    store = open_store(output or str(folder / "out"), retry_minutes=1)
    return ShardLocation(Workers(), store, "run", folder / scratch)


@pytest.mark.parametrize("shard_bytes", [1, 9_000, 40_000])
def test_shards_end_to_end_are_the_cache_of_one_worker(
    shard_bytes: int,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hard_corpus(tmp_path)
    monkeypatch.setattr(corpus_shards, "SHARD_BYTES", shard_bytes)

    alone, expected = prepared(tmp_path, tokenizer, "alone", None)
    together, found = prepared(tmp_path, tokenizer, "together", shard_location(tmp_path, "shared"))

    for name in token_cache.COLUMNS:
        assert (found.folder / name).read_bytes() == (expected.folder / name).read_bytes(), name
    assert found.tally == expected.tally
    assert expected.tally.void and expected.tally.unusable and expected.tally.foreign
    assert found.conversations == expected.conversations
    assert content(together) == content(alone)
    assert together.counts == alone.counts


def test_a_shard_that_was_damaged_before_it_was_stored_is_made_again(
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its manifest lists the damaged bytes. Those of the others are read once, while fetched."""
    write_prose(tmp_path, 6)
    monkeypatch.setattr(corpus_shards, "SHARD_BYTES", 4_000)
    first, _ = prepared(tmp_path, tokenizer, "first", shard_location(tmp_path, "one"))
    damaged = sorted(tmp_path.glob("out/run/tokens/*/*"))[2]
    flip(damaged / "tokens")
    (damaged / "manifest.json").unlink()
    publish(damaged, open_store(str(damaged.parent), retry_minutes=0), damaged.name)
    read, was_read = [], token_cache.checksums_of

    def noted(folder: Path, sizes: Any) -> Any:
        read.append(folder.name)
        return was_read(folder, sizes)

    monkeypatch.setattr(token_cache, "checksums_of", noted)
    with caplog.at_level(logging.WARNING):
        again, whole = prepared(tmp_path, tokenizer, "again", shard_location(tmp_path, "two"))
    assert content(again) == content(first)
    assert (
        f"{damaged.name}: is no shelf; this portion of the data is tokenised again" in caplog.text
    )
    assert read == [damaged.name, whole.folder.name]  # what was made here, and by this test


@pytest.mark.s3
@pytest.mark.parametrize("bucket", ["http"], indirect=True)
def test_a_start_elsewhere_takes_the_shards_from_a_bucket(
    bucket: Any,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One object is damaged: that shard alone is made, and stored, again."""
    write_prose(tmp_path, 6)
    monkeypatch.setattr(corpus_shards, "SHARD_BYTES", 4_000)
    output = f"s3://{bucket.name}/out/"
    first, _ = prepared(tmp_path, tokenizer, "first", shard_location(tmp_path, "one", output))
    key = [stored.key for stored in bucket.objects.all() if stored.key.endswith("/tokens")][2]
    body = bucket.Object(key).get()["Body"].read()
    bucket.put_object(Key=key, Body=bytes([body[0] ^ 4]) + body[1:])
    written, was_written = [], token_cache_writer.write

    def noted(start: Any, words: Any, max_length: int, folder: Path) -> None:
        written.append(folder.name)
        was_written(start, words, max_length, folder)

    monkeypatch.setattr(token_cache_writer, "write", noted)
    again, _ = prepared(tmp_path, tokenizer, "again", shard_location(tmp_path, "two", output))
    assert content(again) == content(first)
    assert written == [key.split("/")[-2]]
    assert f"{key}: is not what its manifest.json lists" in caplog.text
    assert bucket.Object(key).get()["Body"].read() == body
    corpus_shards.delete_shards(open_store(output, retry_minutes=1), "run")
    assert not list(bucket.objects.all())


def start_nodes(folder: Path, name: str, size: int, stop: str = "", **changes: str) -> Processes:
    """A worker on each of `size` new machines: nothing is shared but data and output."""
    (folder / "notes").mkdir(exist_ok=True)
    port = str(unused_port())
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
    clean |= ONE_THREAD | {"SHARD_NOTES": str(folder / "notes")}
    clean |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", JOB],
            cwd=ROOT,
            env=clean
            | {"RANK": str(rank), "SHARD_STOP": stop if rank else ""}
            | variables(
                folder,
                **SETTINGS
                | {"MAX_STEPS": "4"}
                | {"SCRATCH_DIR": f"{folder}/{name}-{rank}"}
                | changes,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def makers(folder: Path) -> list[tuple[int, int]]:
    """(shard, worker) for all that were made since the last time."""
    found = []
    for note in (folder / "notes").glob("*-by-*"):
        number, _, rank = note.name.partition("-by-")
        found.append((int(number), int(rank)))
        note.unlink()
    return sorted(found)


def weights(folder: Path) -> bytes:
    (run,) = (path.parent for path in folder.glob("out/*/manifest.json"))
    return adapter_bytes(run)


def test_a_machine_that_is_lost_ends_all_and_a_start_on_others_makes_what_is_missing(
    tmp_path: Path,
) -> None:
    """Each makes one in turn; one of those that are there is damaged. The same weights as alone."""
    write_prose(tmp_path, 6)
    alone = start_nodes(tmp_path, "alone", 1, OUTPUT_URI=str(tmp_path / "alone" / "out"))
    nodes = start_nodes(tmp_path, "lost", 2, stop="2")
    wait_for(tmp_path / "notes" / "stopped", nodes)
    nodes[1].kill()
    assert ends(nodes) == [12, -signal.SIGKILL]
    assert "another worker ended or cannot be reached" in nodes[0].stderr.read()
    assert [rank for _, rank in makers(tmp_path)].count(1) == 2
    there = {path.parent for path in tmp_path.glob("out/*/tokens/*/*/manifest.json")}
    assert len(there) == 3
    damaged = min(there)
    flip(damaged / "tokens")

    nodes = start_nodes(tmp_path, "new", 2)
    output = [node.stdout.read() + node.stderr.read() for node in nodes]
    assert ends([*nodes, *alone]) == [0, 0, 0], output
    again = {number for number, _ in makers(tmp_path)}
    assert again == set(range(6)) - {int(path.name[:7]) for path in there - {damaged}}
    assert any(f"{damaged.name}/tokens: is not what its manifest" in text for text in output)
    assert weights(tmp_path) == weights(tmp_path / "alone")
    assert not list(tmp_path.glob("out/*/tokens")), "the shards outlive the run"
    assert not list(tmp_path.glob("new-*/portions/*/*"))


def wait_for(path: Path, processes: Processes) -> None:
    while not path.exists():
        assert [process.poll() for process in processes] == [None] * len(processes)
        time.sleep(0.1)
