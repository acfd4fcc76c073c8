"""Secrets in eight places stay out of logs, exceptions, the last word and what is published."""

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from support.jobs import ROOT, variables

LEVELS = ("DEBUG", "ERROR")  # all that is ever said, and the last word alone
CANARY = "c4nary"  # in every secret below; letters and digits, so that no escaping hides it
ODD = '/+"\\=:@'
ENDPOINT_PASSWORD = CANARY + "-endpoint" + ODD
PROXY_PASSWORD = CANARY + "-proxy" + ODD


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of a server and proxy that refuses all and quotes every header of the request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = escape(f"{self.path} {dict(self.headers)}")
            body = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>".encode()
            self.send_response(407 if self.command == "CONNECT" else 403, "Refused")
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_HEAD = do_CONNECT = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def planted(folder: Path, port: int) -> dict[str, str]:
    """The environment of a job with a canary in each of the eight places."""
    (folder / "aws").write_text(
        f"[default]\naws_access_key_id = AKIA{CANARY}file\n"
        f"aws_secret_access_key = {CANARY}-file-secret/+\naws_session_token={CANARY}-file-token==\n"
    )
    (folder / "home").mkdir(exist_ok=True)
    endpoint, proxy = (
        f"http://user:{quote(word, safe='')}@127.0.0.1:{port}"
        for word in (ENDPOINT_PASSWORD, PROXY_PASSWORD)
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": f"AKIA{CANARY}1",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-secret{ODD}",
        "AWS_SESSION_TOKEN": f"{CANARY}-session/+==",
        "HF_TOKEN": f"hf_{CANARY}",
        "WANDB_API_KEY": f"{CANARY}-wandb-key",
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws"),
        "HTTPS_PROXY": proxy,
    }


def changed_for(case: str, folder: Path, port: int) -> tuple[dict[str, str], dict[str, str]]:
    """What each case changes: variables of the environment, settings."""
    bucket = {"OUTPUT_URI": "s3://some-bucket/out/"}
    if case == "hub by proxy":
        return {}, {"BASE_MODEL": "some/model"}
    if case == "bucket by file and proxy":
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        proxy = planted(folder, port)["HTTPS_PROXY"]
        return dict.fromkeys(names, "") | {
            "HTTP_PROXY": proxy,
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        }, bucket
    return {}, bucket


def run_job(
    folder: Path, environment: dict[str, str], *arguments: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    last_word = folder / "termination"
    last_word.touch()
    code = (
        "import pathlib; from trainer import cli; from trainer.runtime import last_words; "
        f"last_words.TERMINATION_LOG = pathlib.Path({str(last_word)!r}); cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment | variables(folder, STORAGE_RETRY_MINUTES="0", **changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


def leaks(text: str) -> list[str]:
    """Every place where a secret shows, also in the form in which headers carry a password."""
    pairs = [f"user:{p}".encode() for p in (ENDPOINT_PASSWORD, PROXY_PASSWORD)]
    shown = [CANARY, *(base64.b64encode(pair).decode() for pair in pairs)]
    return [line for line in text.splitlines() if any(word in line for word in shown)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", ["bucket", "bucket by file and proxy", "hub by proxy"])
def test_a_refused_start_shows_none_at_any_level(
    level: str, case: str, echo: int, tmp_path: Path
) -> None:
    environment, settings = changed_for(case, tmp_path, echo)
    done = run_job(tmp_path, planted(tmp_path, echo) | environment, LOG_LEVEL=level, **settings)
    assert done.returncode in (11, 12), done.stderr
    assert leaks(done.stdout + done.stderr) == []
    last_word = (tmp_path / "termination").read_text()
    assert last_word
    assert leaks(last_word) == []
    if level == "DEBUG" and case != "hub by proxy":
        assert "***" in done.stdout
        assert "Response body" in done.stdout  # botocore was heard


@pytest.mark.parametrize(
    "arguments",
    [["--data-uri", f"s3://me:{CANARY}@bucket/"], ["train", f"http://me:{CANARY}@bucket/"]],
)
def test_a_wrong_argument_is_named_without_its_password(
    arguments: list[str], echo: int, tmp_path: Path
) -> None:
    done = run_job(tmp_path, planted(tmp_path, echo), *arguments)
    assert done.returncode == 2
    assert "bucket" in done.stderr
    assert leaks(done.stdout + done.stderr + (tmp_path / "termination").read_text()) == []


def test_what_is_published_holds_none(echo: int, tmp_path: Path) -> None:
    done = run_job(tmp_path, planted(tmp_path, echo), LOG_LEVEL="DEBUG", MAX_STEPS="2")
    assert done.returncode == 0, done.stderr
    assert leaks(done.stdout + done.stderr) == []
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if leaks(path.read_bytes().decode("latin-1"))] == []
