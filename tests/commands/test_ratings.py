"""What people keep on the page is there in whole lines, in this file and in no other."""

import json
import threading
from pathlib import Path

import pytest

from trainer.commands.ratings import Ratings
from trainer.errors import DoesNotFitError, JobError, NotAllowedError


def kept(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[turn["content"] for turn in json.loads(line)["messages"]] for line in lines]


def test_a_file_that_ends_within_a_line_is_gone_on_with_on_the_next(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "by hand"}]}')
    Ratings(path).keep([], "Wie?", "Grün.")
    assert kept(path) == [["by hand"], ["Wie?", "Grün."]]
    assert path.stat().st_mode & 0o044  # it was ours to share before


def test_an_answer_that_is_kept_twice_is_one_record(tmp_path: Path) -> None:
    ratings = Ratings(tmp_path / "kept.jsonl")
    for answer in ("So.", "No.", "So."):
        ratings.keep([], "Why?", answer)
    ratings.keep([("Who?", "A.")], "Why?", "So.")
    assert kept(ratings.path) == [["Why?", "So."], ["Why?", "No."], ["Who?", "A.", "Why?", "So."]]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    Ratings(tmp_path / "kept.jsonl").keep([], "Why?", "So.")
    assert (tmp_path / "kept.jsonl").stat().st_mode & 0o777 == 0o600


def test_all_that_is_kept_at_once_by_two_servers_is_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    both = [Ratings(path), Ratings(path)]
    threads = [
        threading.Thread(target=both[n % 2].keep, args=([], str(n), "x" * 5000)) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(question) for question, _ in kept(path)) == list(range(16))


def test_a_file_that_is_full_stays_as_it_is(tmp_path: Path) -> None:
    ratings = Ratings(tmp_path / "kept.jsonl", most_bytes=200)
    ratings.keep([], "Why?", "So.")
    with pytest.raises(DoesNotFitError, match="move it to your data"):
        ratings.keep([], "Why?", "x" * 200)
    assert kept(ratings.path) == [["Why?", "So."]]


def test_no_link_is_followed_and_no_folder_made(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(
        NotAllowedError,
        match="link: is a link, a pipe or a device, and nothing is written there; move it away",
    ):
        Ratings(tmp_path / "link").keep([], "Why?", "So.")
    with pytest.raises(NotAllowedError, match="/dev/null: is a link, a pipe or a device"):
        Ratings(Path("/dev/null")).keep([], "Why?", "So.")
    with pytest.raises(JobError, match="nowhere"):
        Ratings(tmp_path / "nowhere" / "kept.jsonl").keep([], "Why?", "So.")
    assert (tmp_path / "other").read_text() == "mine" and not (tmp_path / "nowhere").exists()
