"""The files of a run lie on local disk, and are read with the columns of its settings."""

import hashlib
from pathlib import Path

import pytest
from support.token_caches import settings_of

from trainer.corpus.examples import Conversation, Message
from trainer.dataset.domain import Domain, Vocabulary
from trainer.dataset.inputs import Inputs, are_documents, domain_beside, fetch_inputs, reader_of
from trainer.storage import Fetched


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_data_and_evaluation_data_are_listed_with_size_and_digest(tmp_path: Path) -> None:
    sums = write(tmp_path / "data/a.txt", "data"), write(tmp_path / "judged/b.txt", "more")
    found = fetch_inputs(settings_of(tmp_path, EVAL_URI=str(tmp_path / "judged")))
    assert [file.name for file in found.data] == ["a.txt"]
    assert found.objects() == [
        {"name": "a.txt", "size": 4, "sha256": sums[0]},
        {"name": "b.txt", "size": 4, "sha256": sums[1]},
    ]


def test_without_evaluation_data_there_is_none(tmp_path: Path) -> None:
    write(tmp_path / "data/a.txt", "data")
    assert fetch_inputs(settings_of(tmp_path)) == Inputs(
        fetch_inputs(settings_of(tmp_path)).data, []
    )


def test_columns_are_those_of_the_settings(tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", "Frage,Antwort\nWarum?,Darum\n")
    settings = settings_of(tmp_path, QUESTION_COLUMN="frage", ANSWER_COLUMN="antwort")
    reader = reader_of(settings, fetch_inputs(settings).data)
    turns = Message("user", "Warum?"), Message("assistant", "Darum")
    assert list(reader) == [(0, Conversation(turns))]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.md", "b/c.txt.gz", "d.PDF", "e.html"], True),
        (["a.md", "picture.png", "__MACOSX/b.jsonl"], True),
        (["a.md", "faq.csv"], False),
        (["texts.jsonl"], False),
        (["picture.png"], False),
        ([], False),
    ],
)
def test_documents_alone_are_known_by_their_names(names: list[str], expected: bool) -> None:
    files = [Fetched(name, Path(name), 1, "0") for name in names]
    assert are_documents(files) is expected


def test_of_prepared_records_it_is_known_what_they_and_those_added_by_hand_speak_of(
    tmp_path: Path,
) -> None:
    told = Vocabulary()
    told.add("The Curlew weighs 3 kg.")
    write(tmp_path / "data/known_words.json", Domain(told, "No.").as_json())
    made = '{"question": "How heavy is the Plover?", "answer": "No.", "made_by": "model"}\n'
    own = '{"question": "How heavy is the Dunlin?", "answer": "4 kg."}\n{"broken\n'
    write(tmp_path / "data/questions.jsonl", made + own)

    def refused() -> list[bool] | None:
        domain = domain_beside(fetch_inputs(settings_of(tmp_path)).data)
        names = ("Curlew", "Plover", "Dunlin")
        return domain and [domain.refuses(f"How heavy is the {name}?") for name in names]

    assert refused() == [False, True, False]
    write(tmp_path / "data/other.csv", "question,answer\nWhy?,So.\n")
    assert refused() is None
