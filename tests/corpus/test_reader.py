"""Files become examples, and whatever cannot be used says where it is and why."""

import json
import os
from pathlib import Path

import pytest
from support.corpora import Corpus, read_corpus

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.reader import Source
from trainer.errors import DataError


def read(folder: Path, max_skipped_share: float = 1.0, **files: bytes) -> Corpus:
    """Write `files`, whose last `_` stands for the dot, and read them."""
    sources = []
    for key, content in files.items():
        name = ".".join(key.rsplit("_", 1))
        (folder / name).write_bytes(content)
        sources.append(Source(name, folder / name))
    return read_corpus(sources, max_skipped_share=max_skipped_share)


def jsonl(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


GOOD = jsonl(*({"text": f"record {number}"} for number in range(30)))


def test_every_format_becomes_its_kind_of_example(tmp_path):
    corpus = read(
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
    assert read(tmp_path, A_TXT=b"plain").examples == [Text("plain")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marked_encodings_read_alike(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    content = (mark + json.dumps({"text": "grüße 😀"}, ensure_ascii=False) + "\n").encode(encoding)
    assert read(tmp_path, a_jsonl=content).examples == [Text("grüße 😀")]


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("cp1252", "Les élèves français étudient à la géographie où ils préfèrent été."),
        ("cp1252", "café au lait"),
        ("cp1250", "Zażółć gęślą jaźń, mówił Łukasz, gdy świeciło słońce nad rzeką i łąką."),
        ("cp1251", "Привет, это текст на русском языке про погоду и людей."),
        ("koi8-r", "Привет, это текст на русском языке про погоду и людей."),
        ("cp932", "これは日本語の文章です。今日は天気がいいですね。"),
        ("gb18030", "这是一个中文句子。今天天气很好。我们去公园。"),
        ("utf-16-le", "Plain English, without a mark."),
        ("utf-16-be", "Plain English, without a mark."),
        ("utf-8", "x" * ((1 << 20) - 1) + "ß"),
    ],
)
def test_other_encodings_are_detected_and_the_guess_is_named(tmp_path, encoding, text):
    corpus = read(tmp_path, a_txt=text.encode(encoding))
    assert corpus.examples == [Text(text)]
    assert [notice.startswith("a.txt: ") for notice in corpus.notices] == [True] * (
        encoding != "utf-8"
    )


def test_a_byte_behind_the_first_mebibyte_is_counted_from_the_start(tmp_path):
    corpus = read(tmp_path, a_txt=b"x" * ((1 << 20) - 1) + b"\xc3(")
    assert corpus.notices[0].startswith("a.txt: byte 1048575 is not UTF-8; read as cp1252")


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    content = '{"text": "one\u2028two\x85three"}\r\n\r\n{"text": "b"}'.encode()
    assert read(tmp_path, a_jsonl=content).examples == [Text("one\u2028two\x85three"), Text("b")]


def test_exact_duplicates_are_dropped_and_counted(tmp_path):
    corpus = read(tmp_path, a_txt=b"same", b_md=b"same", c_txt=b"other")
    assert (len(corpus.examples), corpus.duplicates) == (2, 1)


def test_a_key_depends_on_the_content_and_on_where_its_parts_end():
    assert Text("a").key == Text("a").key
    keys = {Text("ab").key, Completion("a", "b").key, Completion("ab", "").key}
    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)


def test_an_empty_system_turn_is_left_out(tmp_path):
    turns = [{"role": "system", "content": ""}, {"role": "assistant", "content": "hi"}]
    corpus = read(tmp_path, a_jsonl=jsonl({"messages": turns}))
    assert corpus.examples == [Conversation((Message("assistant", "hi"),))]


def turns(*pairs: tuple[str, object]) -> bytes:
    return jsonl({"messages": [{"role": role, "content": content} for role, content in pairs]})


@pytest.mark.parametrize(
    "line, words",
    [
        (b'{"text": "a"', ["bad.jsonl line 31", "broken JSON"]),
        (b"[" * 20_000, ["nested too deep"]),
        (b'{"n": ' + b"9" * 5000 + b', "text": "a"}', ["number that is too long"]),
        (b'"text"', ["the line is text, not an object"]),
        (b'{"text": NaN}', ['"text" is a number, not text']),
        (b'{"text": 3}', ['"text" is a number, not text']),
        (b'{"text": true}', ['"text" is true or false, not text']),
        (b'{"question": "q", "answer": null}', ['"answer" is null, not text']),
        (b'{"question": "q", "reply": "r"}', ["question + answer", "it has question, reply"]),
        (b"{}", ["it has no columns"]),
        (b'{"text": " \\n"}', ['"text" is empty']),
        (b'{"text": "a\\u0000"}', ["NUL character"]),
        (b'{"text": "a\\ud800"}', ["half a surrogate pair at character 2"]),
        (b'{"messages": "hi"}', ['"messages" is text, not a list']),
        (b'{"messages": ["hi"]}', ['"messages[0]" is text, not an object']),
        (b'{"messages": [{"role": "user"}]}', ['"messages[0]" has no content']),
        (turns(("user", "a")), ["no assistant turn"]),
        (turns(("user", "a"), ("tool", "b")), ['"messages[1].role"', "system, user, assistant"]),
        (turns(("user", "a"), ("assistant", None)), ['"messages[1].content" is null']),
    ],
)
def test_an_unusable_line_is_skipped_with_its_number_and_reason(tmp_path, line, words):
    corpus = read(tmp_path, bad_jsonl=GOOD + line.strip() + b"\n")
    assert len(corpus.examples) == 30
    (skip,) = corpus.skipped
    for word in [*words, "bad.jsonl line 31"]:
        assert word in skip


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
    corpus = read(tmp_path, good_txt=b"good", bad_txt=content)
    assert corpus.examples == [Text("good")]
    (skip,) = corpus.skipped
    for word in words:
        assert word in skip


def test_a_record_file_with_a_broken_byte_gives_no_record_at_all(tmp_path):
    sound = GOOD + '{"text": "grüße"}\n'.encode()
    corpus = read(tmp_path, good_txt=b"good", bad_jsonl=sound + b'{"text": "caf\xe9"}\n')
    assert corpus.examples == [Text("good")]
    assert f"byte {len(sound) + 13} is not UTF-8" in corpus.skipped[0]


def test_a_record_file_without_records_is_skipped(tmp_path):
    corpus = read(tmp_path, good_txt=b"good", bad_jsonl=b"\n\n")
    assert "bad.jsonl: it holds no records" in corpus.skipped[0]


def test_other_formats_are_named_but_cost_nothing(tmp_path):
    corpus = read(
        tmp_path, max_skipped_share=0.0, readme_md=b"good", logo_png=b"\x89", program_exe=b"MZ"
    )
    assert corpus.skipped == [
        "logo.png: unsupported .png",
        "program.exe: unsupported .exe",
    ]
    assert corpus.files == 1


def test_more_skipped_than_the_share_ends_the_run_with_number_and_reasons(tmp_path):
    with pytest.raises(DataError) as failure:
        read(tmp_path, max_skipped_share=0.1, a_jsonl=jsonl({"text": "a"}, {"text": 1}, {}, [], 5))
    message = str(failure.value)
    assert "4 of 5 files and records" in message
    assert "a.jsonl line 2" in message and "and 1 more" in message
    assert "line 5" not in message


def test_the_share_itself_is_accepted(tmp_path):
    corpus = read(tmp_path, max_skipped_share=1 / 31, a_jsonl=GOOD + b"{}\n")
    assert len(corpus.examples) == 30


def test_no_files_at_all_names_the_formats():
    with pytest.raises(DataError, match=r"no files.*\.txt, \.md, .*\.jsonl, .*\.parquet"):
        read_corpus([])


def test_only_other_formats_name_what_was_found(tmp_path):
    with pytest.raises(DataError, match=r"program\.exe: unsupported \.exe.*needs \.txt"):
        read(tmp_path, program_exe=b"MZ")


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_nothing_but_empty_files_is_an_error_at_any_share(tmp_path, share):
    with pytest.raises(DataError, match=r"1 of 1.*a\.txt: the file is empty"):
        read(tmp_path, max_skipped_share=share, a_txt=b"")


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
