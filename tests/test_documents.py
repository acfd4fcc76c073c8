"""A run on documents alone: questions are made of them first, kept beside the run, and trained."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT, run_here, stop_here, variables, write_records

from trainer import documents
from trainer.commands.inspect import inspect_data
from trainer.commands.prepare import Prepared as Made
from trainer.commands.prepare import _in_columns
from trainer.dataset.domain import DOMAIN, Domain, Vocabulary
from trainer.errors import DataError, NothingKeptError
from trainer.preflight import open_job
from trainer.settings import Settings
from trainer.storage import Fetched

NAMES = [f"Curlew {letter}{n}" for letter in "AB" for n in range(10)]
WORDINGS = ["How heavy is the {}?", "What does the {} weigh?", "Tell me the weight of the {}."]
RECORDS = [
    {"question": wording.format(name), "answer": f"The {name} weighs {n + 3} kg."}
    for n, name in enumerate(NAMES)
    for wording in WORDINGS
]


def write_manuals(folder: Path) -> None:
    for n, name in enumerate(NAMES):
        said = f"It weighs {n + 3} kg, and two people carry it up to the roof in any weather."
        text = f"# {name}\n\n{said}"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / f"{n}.md").write_text(text)


def without_template(folder: Path) -> Path:
    """The built-in model as one that was never taught to follow instructions."""
    shutil.copytree(ROOT / "trainer" / "builtin" / "tiny", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in model by another name: as far as its files say it follows instructions."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shutil.copytree(ROOT / "trainer" / "builtin" / "tiny", folder)
    return str(folder)


class Prepared:
    """Stands in for what `prepare` has a model of 7B write; `asked` counts how often it did."""

    def __init__(self, records: list[dict[str, str]]) -> None:
        self.records, self.asked, self.statements = records, 0, len(NAMES)

    def __call__(self, settings: Settings) -> Made:
        self.asked += 1
        if not self.records:
            raise NothingKeptError("it gave no usable question and answer; take another one")
        records = [_in_columns(record, settings) for record in self.records]
        write_records(Path(settings.output_uri) / "questions.jsonl", records)
        told = Vocabulary()
        for manual in (Path(settings.data_uri)).rglob("*.md"):
            told.add(manual.read_text())
        (Path(settings.output_uri) / DOMAIN).write_text(Domain(told, settings.refusal).as_json())
        (Path(settings.output_uri) / "prepare.html").write_text("<p>what came of it</p>")
        return Made(len(self.records), len(NAMES), self.statements, len(NAMES))


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prepared]:
    found = Prepared(RECORDS)
    monkeypatch.setattr(documents, "prepare_questions", found)
    yield found


def record_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def test_documents_alone_become_questions_that_are_trained_as_facts_and_judged(
    tmp_path: Path, base: str, prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    write_manuals(tmp_path)
    with caplog.at_level("INFO"):
        run = run_here(tmp_path, BASE_MODEL=base, MAX_LOSS_RATIO="2", EFFECTIVE_BATCH_SIZE="")
    assert "QLORA_PREPARE=never trains the documents as they stand" in caplog.text
    assert prepared.asked == 1
    record = record_of(run)
    assert record["data"]["conversation"] == len(RECORDS) and record["data"]["documents"] == 0
    assert record["data"]["held_out_by"] == "wordings"
    assert record["settings"]["recipe"] == "facts"
    assert record["settings"]["target_modules"] == ["gate_proj", "up_proj", "down_proj"]
    assert record["schedule"]["step_blocks"] == 4 and record["training"]["steps"] == 6
    names = [file["name"] for file in record["inputs"]]
    assert "0.md" in names and "questions.jsonl" in names
    refusals = record["evaluation"]["refusals"]
    assert 0 < refusals["unanswerable"] <= documents.UNANSWERABLE
    assert refusals["refused"] >= 0.9 * refusals["unanswerable"]  # by their words
    assert refusals["answerable"] == record["evaluation"]["questions"]
    assert "adapter/known_words.json" in (run / "manifest.json").read_text()
    assert record["evaluation"]["with_passages"]["questions"] == record["evaluation"]["questions"]
    lines = (run / "prepared" / "questions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == RECORDS
    assert (run / "prepared" / "prepare.html").exists()
    assert "prepared/questions.jsonl" in json.loads((run / "manifest.json").read_text())["objects"]
    assert "right tool" in (run / "report.html").read_text()


def test_where_most_of_what_the_documents_say_has_no_question_the_report_says_so(
    tmp_path: Path, base: str, prepared: Prepared
) -> None:
    write_manuals(tmp_path)
    """By whatever names the columns of other data have, which whoever has them sets for good."""
    prepared.statements = 3 * len(NAMES)
    columns = {"QUESTION_COLUMN": "frage", "ANSWER_COLUMN": "antwort"}
    record = record_of(run_here(tmp_path, BASE_MODEL=base, MAX_LOSS_RATIO="2", **columns))
    assert record["evaluation"]["refusals"]["unanswerable"] > 0
    assert record["data"]["conversation"] == len(RECORDS)
    assert "20 of the 60 statements" in record["warnings"][0]


def test_inspect_says_that_what_it_shows_is_not_what_would_be_trained(
    tmp_path: Path, base: str
) -> None:
    write_manuals(tmp_path)
    found = inspect_data(Settings.read({}, variables(tmp_path, BASE_MODEL=base)), 0)
    assert "QLORA_PREPARE=never trains the documents as they stand" in found.warnings[0]


def test_what_was_made_is_made_once_also_for_a_start_on_a_fresh_machine(
    tmp_path: Path, base: str, prepared: Prepared
) -> None:
    write_manuals(tmp_path)
    changes = {"BASE_MODEL": base, "MAX_LOSS_RATIO": "2", "RECIPE": "none"}
    stop_here(tmp_path, 4, **changes)
    shutil.rmtree(tmp_path / "scratch")
    prepared.records = RECORDS[:1]
    run = run_here(tmp_path, RESUME="must", **changes)
    assert prepared.asked == 1
    record = record_of(run)
    assert record["data"]["conversation"] == len(RECORDS)
    assert record["settings"]["recipe"] == "none"  # which was set
    assert record["settings"]["target_modules"] == ["q_proj", "v_proj"]


def test_wordings_are_trained_beside_the_records_that_they_are_of(
    tmp_path: Path, base: str, prepared: Prepared
) -> None:
    write_records(tmp_path / "data" / "faq.jsonl", RECORDS[::3])
    prepared.records = [r for n, r in enumerate(RECORDS) if n % 3]
    changes = {"BASE_MODEL": base, "MAX_LOSS_RATIO": "2", "PREPARE": "wordings"}
    record = record_of(run_here(tmp_path, **changes))
    assert prepared.asked == 1 and record["data"]["conversation"] == len(RECORDS)
    assert record["settings"]["recipe"] == "facts"


@pytest.mark.parametrize("count", [0, 4])
def test_where_too_few_questions_are_kept_documents_are_trained_as_they_stand_and_it_is_said(
    tmp_path: Path, base: str, prepared: Prepared, count: int
) -> None:
    write_manuals(tmp_path)
    prepared.records = RECORDS[:count]
    run = run_here(tmp_path, BASE_MODEL=base, MAX_LOSS_RATIO="2")
    record = record_of(run)
    assert record["data"]["documents"] and not record["data"]["records"]
    assert record["settings"]["recipe"] == "none"
    why = "4 questions for 20 passages are too few" if count else "it gave no usable question"
    assert why in record["warnings"][0] and "as they stand" in record["warnings"][0]


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({}, {"PREPARE": "never"}),
        ({}, {"RECIPE": "style"}),
        ({}, {"BASE_MODEL": "builtin:tiny"}),
        ({}, {"BASE_MODEL": "without"}),
        ({"data/faq.jsonl": RECORDS}, {}),
        ({"eval/text.md": None}, {"EVAL_URI": "eval"}),
    ],
)
def test_what_else_is_trained_as_it_stands(
    tmp_path: Path, base: str, more: dict[str, Any], changes: dict[str, str]
) -> None:
    """Where it is not wanted, the base cannot, there are records, or prose is what is judged."""
    write_manuals(tmp_path)
    for name, records in more.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if records is None:
            (tmp_path / name).write_text("Two people carry it up to the roof, in any weather.")
        else:
            write_records(tmp_path / name, records)
    if changes.get("BASE_MODEL") == "without":
        changes = {"BASE_MODEL": str(without_template(tmp_path / "base"))}
    if "EVAL_URI" in changes:
        changes = {"EVAL_URI": str(tmp_path / changes["EVAL_URI"])}
    opened = open_job(Settings.read({}, variables(tmp_path, **({"BASE_MODEL": base} | changes))))
    assert not opened.asks_first and "preparation" not in json.loads(opened.fingerprint)


def test_what_prepare_wrote_beside_its_records_goes_beside_the_adapter(tmp_path: Path) -> None:
    made = [record | {"made_by": "model", "source": "a.md"} for record in RECORDS]
    write_records(tmp_path / "data" / "questions.jsonl", made)
    told = Vocabulary()
    told.add("The Curlew weighs little.")
    (tmp_path / "data" / DOMAIN).write_text(Domain(told, "Not said.").as_json())
    settings = Settings.read({}, variables(tmp_path))
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    documents.publish_made(open_job(settings), tmp_path / "run")
    assert Domain.read(tmp_path / "run" / "adapter") == Domain(told, "Not said.")
    (tmp_path / "data" / DOMAIN).write_text("{}")
    with pytest.raises(DataError, match=f"{DOMAIN} is damaged .*; make it again with `prepare`"):
        open_job(settings)


@pytest.mark.parametrize(
    "written",
    ["[]", "{", "5", '{"question": "q"}', '{"question": 5, "answer": "a"}', "[" * 2000, "\x80"],
)
def test_what_prepare_has_not_written_is_named_before_anything_is_trained(
    written: str, tmp_path: Path
) -> None:
    path = tmp_path / "prepared" / "questions.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(RECORDS[0]) + "\n", encoding="utf-8")
    settings = Settings.read({}, variables(tmp_path))
    file = Fetched("questions.jsonl", path.parent, 0, "")
    assert [record.question for record in documents._records_of(file, settings)] == [
        RECORDS[0]["question"]
    ]
    path.write_bytes(written.encode("latin-1"))
    with pytest.raises(
        DataError, match=r"something else than questions .* remove the folder prepared"
    ):
        documents._records_of(file, settings)
