"""Every command of the README and of the pages it leads to, as it stands there.

Ours run for real, on the built-in model and few steps; of other people's
programs tests/support/stand_in_runtimes.py looks at what they are given. `make demo` and
`make test` are what .ci/run itself does, and the Kubernetes section is run by test_submit.py.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT, variables, write_records
from support.readme import PAGES, blocks, page, section

from trainer.commands.init import HARDENED

RUN = "RUN_ID"  # as the README calls it; a run may be called so
PROGRAMS = ("docker", "vllm", "ollama", "llama-server")
over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)


class Checkout:
    """A folder where the README's paths exist and its programs can be called."""

    def __init__(self, folder: Path) -> None:
        self.here = folder / "checkout"
        self.here.mkdir()
        for name in ("trainer", "docker", "entrypoint.py", "Dockerfile"):
            (self.here / name).symlink_to(ROOT / name)
        write_records(self.here / "my-documents" / "questions.jsonl")
        (self.here / "questions.txt").write_text("What is the code of part 3?\n")
        programs = folder / "bin"
        programs.mkdir()
        for name in PROGRAMS:
            self._program(programs / name, f"{ROOT}/tests/support/stand_in_runtimes.py {name}")
        (self.here / ".venv" / "bin").mkdir(parents=True)
        self._program(self.here / ".venv" / "bin" / "python", "")
        small = variables(folder, MAX_STEPS="2", RUN_ID=RUN)
        for name in ("QLORA_DATA_URI", "QLORA_OUTPUT_URI"):
            del small[name]
        self.environment = os.environ | small | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def _program(self, path: Path, arguments: str) -> None:
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        path.chmod(0o755)

    def type(self, text: str) -> str:
        """What the commands print. They have to succeed and to say nothing else."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.here,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, command: str) -> str:
        """The page of a command that runs until Ctrl-C."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.here,
            env=self.environment | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        guard = threading.Timer(120, process.kill)
        guard.start()
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as response:
            page: str = response.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        guard.cancel()
        return page


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """With a run that the README's own commands have looked at, trained and asked."""
    made = Checkout(tmp_path_factory.mktemp("readme"))
    (laptop,) = blocks("On a laptop")
    made.type(laptop)
    assert (made.here / "results" / RUN / "manifest.json").is_file()
    return made


def test_any_adapter_is_compared_with_its_base(checkout: Checkout) -> None:
    verdict = json.loads(checkout.type("\n".join(blocks("Judge it", "results"))))
    assert verdict["questions"] == len(verdict["samples"]) > 0


def test_the_result_answers_at_once_from_a_file_and_in_the_browser(checkout: Checkout) -> None:
    (text,) = blocks("Ask it", "results")
    text = re.sub(r" +#.*", "", text.replace("s3://my-bucket/models/", "results/"))
    *answering, serving = text.splitlines()
    with ThreadPoolExecutor() as together:  # most of each is the start of Python
        answers = list(together.map(checkout.type, answering))
    assert [len(answer.splitlines()) for answer in answers] == [1, 1, 0]
    assert "--serve" in serving
    assert "<title>Ask builtin:tiny</title>" in checkout.serve(f"{serving} --port 0")


def test_the_result_is_taken_elsewhere(checkout: Checkout) -> None:
    checkout.type("\n".join(blocks("Take it elsewhere", "results")))
    assert (checkout.here / "merged" / "model.safetensors").is_file()


def test_the_adapter_loads_as_the_readme_says(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout.here)
    (text,) = blocks("Take it elsewhere", "results", language="python")
    tiny = str(ROOT / "trainer" / "builtin" / "tiny")
    found: dict[str, Any] = {}
    exec(text.replace("NousResearch/Llama-2-7b-hf", tiny), found)
    assert "base_model.model.lm_head.weight" in dict(found["model"].named_parameters(
        remove_duplicate=False
    ))  # fmt: skip
    assert found["tokenizer"].chat_template


@pytest.mark.s3
@over_http
def test_from_bucket_to_bucket(bucket: Any, tmp_path: Path) -> None:
    (folder := tmp_path / "s3").mkdir()
    made = Checkout(folder)
    bucket.upload_file(str(made.here / "my-documents/questions.jsonl"), "documents/questions.jsonl")
    (text,) = blocks("Buckets", "data")
    text = text.replace("my-bucket", bucket.name)
    text = re.sub("export AWS_.*", "", text)  # the server's own, which are set already
    (asking,) = blocks("Ask it", "results")
    (line,) = [line for line in asking.splitlines() if "s3://" in line]
    made.type(text)
    assert len(made.type(line.replace("my-bucket", bucket.name)).splitlines()) == 1


def test_the_container_commands_name_what_is_there(checkout: Checkout) -> None:
    checkout.type("\n".join(blocks("In Docker")))


def test_several_workers_publish_one_run(tmp_path: Path) -> None:
    made = Checkout(tmp_path)
    made.environment["OMP_NUM_THREADS"] = "1"
    made.type("\n".join(blocks("Several GPUs, several machines", "scaling")))
    assert (made.here / "results" / RUN / "manifest.json").is_file()


def test_what_comes_out_is_asked_judged_and_taken_along(checkout: Checkout) -> None:
    """The README's short list has no command that the pages do not explain and this file runs."""
    (short,) = blocks("What comes out")
    explained = "".join(
        block
        for title in ("Ask it", "Judge it", "Take it elsewhere")
        for block in blocks(title, "results")
    )
    for line in short.splitlines():
        assert re.sub(r" +#.*", "", line) in explained


def test_no_command_is_left_out() -> None:
    run_here = {"On a laptop", "In Docker", "What comes out", "Buckets", "Ask it", "Judge it"}
    run_here |= {"Take it elsewhere", "Several GPUs, several machines"}
    run_there = {"On Kubernetes", "With kubectl alone"}  # test_submit.py
    with_commands = {
        title
        for name in ("README", *PAGES)
        for title in re.findall(r"(?m)^## (.*)$", page(name))
        if "```sh" in section(title, name)
    }
    assert with_commands == run_here | run_there
    first = re.findall(r"(?m)^make \w+", page("README").partition("\n## ")[0])
    ci = (ROOT / ".ci" / "run").read_text()
    assert first == ["make demo", "make test"]
    assert set(first) <= {line.strip() for line in ci.splitlines()}


def test_every_command_of_the_program_is_in_the_readme_or_a_page_and_has_help() -> None:
    from trainer.cli import cli

    pages = "".join(map(page, ("README", *PAGES)))
    for name, command in cli.commands.items():
        assert name == "train" or re.search(rf"entrypoint.py {name}\b", pages), name
        assert command.help


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(page("README").split()) < 1_900
    for name in PAGES:
        assert f"](docs/{name}.md)" in page("README")


def test_what_a_runtime_would_refuse_is_refused_here(checkout: Checkout) -> None:
    for command in (
        "docker build --build-arg VARIANTE=cpu .",
        f"docker run {HARDENED} -e QLORA_DATA_URL=x qlora-job",
        "docker run -e QLORA_DATA_URI=x qlora-job",
        "docker compose -f docker/compose.yaml --profile tpu up",
        "llama-server -m questions.txt",
        "vllm serve x --lora-modules a=results/RUN_ID/adapter",
    ):
        with pytest.raises(AssertionError):
            checkout.type(command)
