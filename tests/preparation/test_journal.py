"""What a model gave survives a kill, and is asked for once."""

import threading
from pathlib import Path

from trainer.preparation.journal import Journal


def test_what_is_kept_is_there_at_the_next_start_without_a_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "replies.jsonl"
    Journal(path).keep({"a": "one", "b": [1, None]})
    path.write_bytes(path.read_bytes() + b'{"no": "pair"}\n["c", "thr')
    again = Journal(path)
    assert len(again) == 2 and again.get("b") == [1, None] and again.get("c") is None
    again.keep({"c": "ü"})
    assert Journal(path).get("c") == "ü"


def test_threads_may_share_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "replies.jsonl")

    def keep(name: str) -> None:
        for number in range(20):
            journal.keep({f"{name}{number}": name * 100})

    threads = [threading.Thread(target=keep, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(tmp_path / "replies.jsonl")) == 80
