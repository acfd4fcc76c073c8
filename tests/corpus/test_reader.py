"""Files become examples, and whatever cannot be used says where it is and why."""

import os
import threading
from pathlib import Path

import pytest
from support.corpora import read_corpus, read_named
from support.makers import jsonl

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.reader import Reader, Source, Tally
from trainer.errors import DataError

GOOD = jsonl(*({"text": f"record {number}"} for number in range(30)))


def test_every_format_becomes_its_kind_of_example(tmp_path):
    corpus = read_named(
        tmp_path,
        a_txt=b"plain",
        b_md=b"# Title\r\n",
        c_jsonl=jsonl(
            {"text": "t", "id": 7},
            {"prompt": "p", "completion": "c"},
            {"question": "q", "answer": "a"},
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]},
        ),
    )
    assert corpus.examples == [
        Text("plain"),
        Text("# Title\n"),
        Text("t"),
        Completion("p", "c"),
        Conversation((Message("user", "q"), Message("assistant", "a"))),
        Conversation((Message("user", "u"), Message("assistant", "v"))),
    ]
    assert (corpus.files, corpus.skipped, corpus.duplicates) == (3, [], 0)
    assert corpus.kinds == {"text": 3, "completion": 1, "conversation": 2}


def test_suffixes_are_read_in_any_case(tmp_path):
    assert read_named(tmp_path, A_TXT=b"plain").examples == [Text("plain")]


def test_exact_duplicates_are_dropped_and_counted(tmp_path):
    corpus = read_named(tmp_path, a_txt=b"same", b_md=b"same", c_txt=b"other")
    assert (len(corpus.examples), corpus.duplicates) == (2, 1)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ["bad.txt", "empty"]),
        (b" \n\t", ["bad.txt", "empty"]),
        (
            "grüße über 30 m ".encode() + b"\xe9",
            ["bad.txt", "byte 19 is not UTF-8", "save the file as UTF-8"],
        ),
        (b"\xff\xfea\x00\x00\xd8b\x00", ["byte 4 is not UTF-16-LE"]),
        (b"\x89PNG\0\0", ["it is an image whatever its name says"]),
        (b"12.50 17 %\n", ["it holds no words"]),
        (b"a\0b", ["NUL", "binary"]),
    ],
)
def test_an_unusable_file_is_skipped_with_its_reason(tmp_path, content, words):
    corpus = read_named(tmp_path, good_txt=b"good", bad_txt=content)
    assert corpus.examples == [Text("good")]
    (skip,) = corpus.skipped
    for word in words:
        assert word in skip


def test_a_record_file_with_a_broken_byte_gives_no_record_at_all(tmp_path):
    sound = GOOD + '{"text": "grüße"}\n'.encode()
    corpus = read_named(tmp_path, good_txt=b"good", bad_jsonl=sound + b'{"text": "caf\xe9"}\n')
    assert corpus.examples == [Text("good")]
    assert f"byte {len(sound) + 13} is not UTF-8" in corpus.skipped[0]


def test_other_formats_are_named_but_cost_nothing(tmp_path):
    corpus = read_named(
        tmp_path, max_skipped_share=0.0, readme_md=b"good", logo_png=b"\x89", program_exe=b"MZ"
    )
    assert corpus.skipped == [
        "logo.png: unsupported .png",
        "program.exe: unsupported .exe",
    ]
    assert corpus.files == 1


def test_more_skipped_than_the_share_ends_the_run_with_number_and_reasons(tmp_path):
    with pytest.raises(DataError) as failure:
        read_named(
            tmp_path, max_skipped_share=0.1, a_jsonl=jsonl({"text": "a"}, {"text": [1]}, {}, [], 5)
        )
    message = str(failure.value)
    assert "4 of 5 files and records" in message
    assert "a.jsonl line 2" in message and "and 1 more" in message
    assert "line 5" not in message


def test_the_share_itself_is_accepted(tmp_path):
    corpus = read_named(tmp_path, max_skipped_share=1 / 31, a_jsonl=GOOD + b"{}\n")
    assert len(corpus.examples) == 30


def test_no_files_at_all_names_the_formats():
    with pytest.raises(DataError, match=r"no files.*\.txt, \.md, .*\.jsonl, .*\.parquet"):
        read_corpus([])


def test_only_other_formats_name_what_was_found(tmp_path):
    with pytest.raises(DataError, match=r"program\.exe: unsupported \.exe.*needs \.txt"):
        read_named(tmp_path, program_exe=b"MZ")


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_nothing_but_empty_files_is_an_error_at_any_share(tmp_path, share):
    with pytest.raises(DataError, match=r"1 of 1.*a\.txt: the file is empty"):
        read_named(tmp_path, max_skipped_share=share, a_txt=b"")


def test_a_file_that_cannot_be_opened_is_named_with_the_next_step(tmp_path):
    folder = tmp_path / "a.txt"
    folder.mkdir()
    with pytest.raises(DataError, match=r"docs/a\.txt cannot be read .*check that"):
        read_corpus([Source("docs/a.txt", folder)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named_with_the_next_step(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("secret")
    path.chmod(0)
    with pytest.raises(DataError, match=r"a\.txt cannot be read \(Permission denied\)"):
        read_corpus([Source("a.txt", path)])


def test_a_name_with_a_newline_cannot_forge_a_log_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\0")
    with pytest.raises(DataError) as failure:
        read_corpus([Source("a\nERROR.txt", path)])
    assert "\n" not in str(failure.value)


def test_a_file_that_changes_while_it_is_read_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 2000)
    is_read = threading.Event()

    def write_on() -> None:
        while not is_read.wait(0.005):
            with path.open("ab") as file:
                file.write(GOOD)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        with pytest.raises(
            DataError, match=r"a\.jsonl changed while it was read; start again once"
        ):
            read_corpus([Source("a.jsonl", path)])
    finally:
        is_read.set()
        writer.join()


def test_a_file_that_changed_since_it_was_listed_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    with pytest.raises(DataError, match=r"a\.jsonl changed while it was read"):
        read_corpus([Source("a.jsonl", tmp_path / "a.jsonl", size=len(GOOD) - 1)])


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt cannot be read \(it is no plain file\)"):
        read_corpus([Source("a.txt", tmp_path / "a.txt")])


def test_tallies_of_files_end_to_end_are_the_tally_of_all(tmp_path):
    files = {
        "a.jsonl": GOOD + b"{}\n",
        "b.csv": b"question,answer\n" + b"Why?,So\n" * 20 + b'"open',
        "c.png": b"",
        "d.txt": b"caf\xe9 au lait",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sources = [Source(name, tmp_path / name) for name in files]
    whole = Reader(sources)
    list(whole)
    joined = Tally()
    for first, end in ((0, 1), (1, 2), (2, 4)):
        reader = Reader(sources[first:end])
        list(reader)
        joined.add(reader.tally)
    assert joined == whole.tally
    assert whole.tally.files_by == {".jsonl": 1, ".csv": 1, ".txt": 1}
    assert whole.tally.skipped_by == {".jsonl": 1, ".csv": 1, ".png": 1}
    assert whole.tally.void == [(30, 50)] and whole.tally.usable == 31
