"""What the run says: JSON lines off a terminal, and never a secret."""

import json
import logging

import pytest

from trainer import log


@pytest.fixture(autouse=True)
def _restored_logging() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_each_line_is_a_json_object_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("auto", "INFO")
    logging.getLogger("trainer.x").info("step", extra=log.figures(step=3, loss=0.5))
    line = json.loads(capsys.readouterr().out)
    assert (line["message"], line["step"], line["loss"]) == ("step", 3, 0.5)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_of_the_environment_reaches_a_line(
    log_format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret-1")
    monkeypatch.setenv("HF_TOKEN", "canary-token-2")
    log.set_up(log_format, "INFO")
    logger = logging.getLogger("someones.library")
    logger.warning("sent canary-secret-1 to http://me:canary-3@host/")
    try:
        raise ValueError("canary-token-2")
    except ValueError:
        logger.exception("failed")
    assert "canary" not in capsys.readouterr().out


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("json", "INFO")
    logging.getLogger("someones.library").info("chatter")
    assert capsys.readouterr().out == ""
