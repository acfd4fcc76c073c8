"""A finished adapter is found from its run, its folder or its output, with its base."""

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bases import settings_for
from support.buckets import over_http, put
from support.folders import files_in
from support.small_adapters import TINY, edit, random_adapter

from trainer.dataset.domain import DOMAIN, Domain, Vocabulary
from trainer.errors import DataError, SettingsError
from trainer.models.adapter_files import QUANTISATION
from trainer.models.adapters import find_adapter
from trainer.models.locate import local_base, locate_base, note_folder
from trainer.runs.publish import move_latest
from trainer.settings import Settings
from trainer.storage import Content, open_store, publish
from trainer.storage.manifest import contents_of, encode

SETTINGS = Settings.read({}, {}, trains=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("below", ["", "/", "/adapter", "/adapter/"])
def test_a_run_and_its_adapter_folder_stand_for_it(run: Path, below: str) -> None:
    adapter = find_adapter(f"{run}{below}", SETTINGS)
    assert adapter.folder == run / "adapter"
    assert adapter.weights.is_file()
    assert (adapter.base.name, adapter.base.folder) == ("builtin:tiny", TINY)


def test_an_output_stands_for_the_newest_run_in_it(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "one")
    (tmp_path / "latest.json").write_text('{"run_id": "one", "finished": 1}')
    assert find_adapter(str(tmp_path), SETTINGS).folder == tmp_path / "one" / "adapter"
    (tmp_path / "latest.json").write_text("no JSON")
    with pytest.raises(DataError, match="name a run, its adapter folder, or an output"):
        find_adapter(str(tmp_path), SETTINGS)


def test_an_adapter_that_was_rejected_is_named_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "one" / "rejected")
    with pytest.raises(DataError, match=r"was rejected, rejected/report\.html there says why"):
        find_adapter(str(tmp_path / "one"), SETTINGS)
    found = find_adapter(str(tmp_path / "one" / "rejected"), SETTINGS)
    assert found.folder == tmp_path / "one" / "rejected" / "adapter"


def test_a_base_that_was_in_a_folder_has_to_be_named(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    edit(moved / "adapter" / "adapter_config.json", base_model_name_or_path="mine")
    with pytest.raises(SettingsError, match="a folder named 'mine'; say where it is with --base-m"):
        find_adapter(str(moved), SETTINGS)
    assert find_adapter(str(moved), SETTINGS, str(TINY)).base.folder == TINY


def test_a_base_in_a_folder_is_found_again_on_the_machine_that_trained(tmp_path: Path) -> None:
    base = shutil.copytree(TINY, tmp_path / "mine")
    run = random_adapter(tmp_path / "run", base)
    settings = settings_for(str(base), tmp_path / "scratch")
    note_folder(settings, locate_base(settings))
    assert find_adapter(str(run), settings).base.folder == base
    base.rename(tmp_path / "moved")
    with pytest.raises(SettingsError, match="say where it is with --base-model"):
        find_adapter(str(run), settings)


def test_what_was_said_is_remembered_where_the_run_was_taught_several_turns(
    run: Path, tmp_path: Path
) -> None:
    assert not find_adapter(str(run), SETTINGS).remembers  # another tool's: there is no record
    moved = shutil.copytree(run, tmp_path / "run")
    for taught in (True, False):
        warnings = ["it forgets"] * taught
        record = {"data": {"several_turns": taught}, "warnings": warnings}
        (moved / "run.json").write_text(json.dumps(record))
        assert find_adapter(str(moved), SETTINGS).remembers == taught
        assert find_adapter(str(moved), SETTINGS).warnings == tuple(warnings)


def test_a_base_of_another_revision_is_warned_of(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        find_adapter(str(run), SETTINGS)
        assert not caplog.messages
        moved = shutil.copytree(run, tmp_path / "run")
        edit(moved / "adapter" / "adapter_config.json", revision="sha256:0")
        revision = find_adapter(str(moved), SETTINGS).base.revision
    assert caplog.messages == [
        f"the adapter was trained on builtin:tiny sha256:0, not {revision}",
    ]


def test_the_tokenizer_is_the_base_s_where_none_is_saved(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    assert find_adapter(str(moved), SETTINGS).tokenizer().name_or_path == str(moved / "adapter")
    (moved / "adapter" / "tokenizer_config.json").unlink()
    assert find_adapter(str(moved), SETTINGS).tokenizer().name_or_path == str(TINY)


def test_what_its_documents_speak_of_is_read_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    adapter = find_adapter(str(random_adapter(tmp_path)), SETTINGS)
    assert adapter.domain is None
    known = Domain(Vocabulary({"curlew"}), "No.")
    (adapter.folder / DOMAIN).write_text(known.as_json())
    assert adapter.domain == known
    (adapter.folder / DOMAIN).write_text("{")
    with pytest.raises(DataError, match=r"known_words.json is damaged .*; bring the adapter there"):
        _ = adapter.domain


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "["),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", '{"eos_token": 5}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": 1}}'),
        ("tokenizer_config.json", '{"chat_template": 5}'),
        ("tokenizer_config.json", '{"chat_template": [1]}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "a", "template": "b"}]}'),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_told(
    run: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = shutil.copytree(run, tmp_path / "run") / "adapter"
    (folder / "chat_template.jinja").unlink()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match="the adapter's tokenizer cannot be read"):
        find_adapter(str(folder), SETTINGS).tokenizer()
    base = shutil.copytree(TINY, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    (base / name).write_text(content)
    with pytest.raises(SettingsError, match="its tokenizer cannot be read"):
        local_base(base, "mine").tokenizer()


def test_the_precision_it_was_trained_in_is_read_or_taken_from_the_base(tmp_path: Path) -> None:
    adapter = find_adapter(str(random_adapter(tmp_path)), Settings.read({}, {}, trains=False))
    assert adapter.compute_dtype() == torch.float32
    (file := adapter.folder / QUANTISATION).unlink()
    assert adapter.compute_dtype() == torch.bfloat16  # the built-in model's own
    file.write_text('{"bnb_4bit_compute_dtype": "float16"}')
    assert adapter.compute_dtype() == torch.float16
    for damaged in ("{", "[]", "{}", '{"bnb_4bit_compute_dtype": "int8"}'):
        file.write_text(damaged)
        with pytest.raises(DataError, match=r"quantization_config.json is damaged"):
            adapter.compute_dtype()


@pytest.mark.s3
@over_http
def test_two_outputs_may_have_a_run_of_one_name_each(
    run: Path, bucket: Any, tmp_path: Path
) -> None:
    """And what the one has beside its weights is not read with those of the other."""
    settings = replace(SETTINGS, scratch_dir=tmp_path / "scratch")
    folders = []
    for team in ("a", "b"):
        copy = shutil.copytree(run, tmp_path / team)
        (copy / "adapter" / "of.txt").write_text(team)
        if team == "a":
            (copy / "adapter" / "more.txt").write_text(team)
        output = open_store(f"s3://{bucket.name}/team-{team}", retry_minutes=0)
        publish(copy, output, "mine")
        move_latest(output, "mine", finished=1.0)
        folders.append(find_adapter(f"s3://{bucket.name}/team-{team}", settings).folder)
    assert [(folder / "of.txt").read_text() for folder in folders] == ["a", "b"]
    assert [(folder / "more.txt").exists() for folder in folders] == [True, False]


@pytest.mark.s3
@over_http
@pytest.mark.parametrize("form", ["{}", "../../{}", "/{}", "x/../../{}"])
def test_what_a_bucket_says_decides_no_folder(
    run: Path, bucket: Any, tmp_path: Path, form: str
) -> None:
    """A `latest.json` that names another adapter on this machine leaves it as it is."""
    settings = replace(SETTINGS, scratch_dir=tmp_path / "scratch")
    trusted = shutil.copytree(run, tmp_path / "trusted")
    before = files_in(trusted)
    name = form.format(str(trusted).lstrip("/") if form.startswith("/") else "trusted")
    for key, body in files_in(run).items():
        put(bucket, f"models/{name}/{key}", body + b" ")
    objects = contents_of(run)
    wrong = {
        key: Content(c.size + 1, sha256((run / key).read_bytes() + b" ").hexdigest())
        for key, c in objects.items()
    }
    put(bucket, f"models/{name}/manifest.json", encode(wrong))
    put(bucket, "models/latest.json", json.dumps({"run_id": name, "finished": 1}).encode())
    with suppress(DataError):
        find_adapter(f"s3://{bucket.name}/models", settings)
    assert files_in(trusted) == before
