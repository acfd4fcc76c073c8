"""The whole job from bucket to bucket, on a real S3 server, over HTTP and TLS."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.buckets import keys, upload_questions
from support.jobs import QUESTIONS, adapter_bytes, run_here, start, variables, wait_for_step

from trainer.errors import DataError, JobError, NotAllowedError, SettingsError

pytestmark = pytest.mark.s3
over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)


def test_the_adapter_comes_back_from_the_bucket_as_it_was_trained(
    bucket: Any, tmp_path: Path
) -> None:
    from trainer.job import run
    from trainer.settings import Settings
    from trainer.storage import fetch_verified, open_store

    places = upload_questions(bucket)
    run_id = run(Settings.read({}, variables(tmp_path, **places)))
    store = open_store(places["OUTPUT_URI"], retry_minutes=0)
    fetch_verified(store, run_id, tmp_path / "back")
    in_a_folder = run_here(tmp_path / "local")
    assert adapter_bytes(tmp_path / "back") == adapter_bytes(in_a_folder)
    assert json.loads((tmp_path / "back" / "run.json").read_text())["inputs"][0]["size"] > 0


@over_http
def test_a_fresh_node_resumes_from_the_bucket_and_ends_the_same(
    bucket: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = upload_questions(bucket)
    process = start(tmp_path / "one", **places)
    wait_for_step(process, 5)
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 33, errors
    assert not any(key.endswith("adapter_model.safetensors") for key in keys(bucket))
    with caplog.at_level("INFO"):
        run_here(tmp_path / "two", **places)
    assert "resuming from checkpoint step-00000" in caplog.text
    weights = [key for key in keys(bucket) if key.endswith("adapter_model.safetensors")]
    published = bucket.Object(weights[0]).get()["Body"].read()
    assert published == adapter_bytes(run_here(tmp_path / "local"))


def test_data_and_evaluation_of_the_same_last_name_do_not_mix(bucket: Any, tmp_path: Path) -> None:
    from trainer.dataset.inputs import fetch_inputs
    from trainer.settings import Settings

    places = upload_questions(bucket)
    bucket.put_object(Key="held-out/corpus/other.txt", Body=b"judged, not trained")
    places["EVAL_URI"] = f"s3://{bucket.name}/held-out/corpus/"
    inputs = fetch_inputs(Settings.read({}, variables(tmp_path, **places)))
    assert [f.name for f in inputs.data] == ["questions.jsonl"]
    assert [f.name for f in inputs.evaluation] == ["other.txt"]
    assert all(f.path.is_file() for f in (*inputs.data, *inputs.evaluation))


@over_http
def test_ask_takes_an_adapter_from_the_bucket(bucket: Any, tmp_path: Path) -> None:
    from trainer.inference.chat_model import load_chat_model
    from trainer.job import run
    from trainer.settings import Settings

    places = upload_questions(bucket)
    settings = Settings.read({}, variables(tmp_path, MAX_STEPS="2", **places))
    run_id = run(settings)
    bot = load_chat_model(f"{places['OUTPUT_URI']}{run_id}", settings, None)
    assert "".join(bot.stream(QUESTIONS[0]["question"]))


@pytest.mark.parametrize(
    ("places", "environment", "kind", "words"),
    [
        ({"DATA_URI": "s3://no-such-bucket-here/x/"}, {}, DataError, "NoSuchBucket"),
        ({"OUTPUT_URI": "s3://no-such-bucket-here/x/"}, {}, SettingsError, "NoSuchBucket"),
        ({"DATA_URI": "s3://{bucket}/empty/"}, {}, DataError, "holds no objects"),
        ({}, {"AWS_SECRET_ACCESS_KEY": "wrong"}, NotAllowedError, "SignatureDoesNotMatch"),
        ({}, {"AWS_ACCESS_KEY_ID": "nobody"}, NotAllowedError, "InvalidAccessKeyId"),
    ],
    ids=["no data bucket", "no output bucket", "empty prefix", "wrong secret", "unknown key"],
)
def test_what_the_bucket_refuses_is_one_sentence(
    places: dict[str, str],
    environment: dict[str, str],
    kind: type[JobError],
    words: str,
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = upload_questions(bucket)
    chosen |= {name: uri.format(bucket=bucket.name) for name, uri in places.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind) as caught:
        run_here(tmp_path, **chosen, STORAGE_RETRY_MINUTES="0")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_signal_while_the_bucket_refuses_ends_with_33_and_the_next_start_pushes_what_was_kept(
    faults: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = upload_questions(faults.bucket) | {"RUN_ID": "mine"}
    faults.add(f"PUT /{faults.bucket.name}/models/mine/checkpoints", "slowdown", times=10_000)
    process = start(tmp_path, **places)
    wait_for_step(process, 3)
    signalled = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 33, errors
    assert time.monotonic() - signalled < 29  # Kubernetes waits 30 s
    assert not any("checkpoints" in key for key in keys(faults.bucket))
    faults.add("nothing", "slowdown")  # replaces the rule
    with caplog.at_level("INFO"):
        run_here(tmp_path, **places)
    assert "resuming from checkpoint step-00000" in caplog.text
    published = faults.bucket.Object("models/mine/adapter/adapter_model.safetensors")
    assert published.get()["Body"].read() == adapter_bytes(run_here(tmp_path / "local"))
