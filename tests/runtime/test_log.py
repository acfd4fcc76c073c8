"""What the run says: JSON lines off a terminal, and never a secret."""

import json
import logging
import os
import pty
import sys
import termios
import threading
import unicodedata

import pytest

from trainer.runtime import log
from trainer.runtime.log import for_terminal


@pytest.fixture(autouse=True)
def _restored_logging() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    hook = threading.excepthook
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.setLogRecordFactory(logging.LogRecord)
    threading.excepthook = hook
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


def test_no_secret_reaches_the_handler_of_a_library(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-token-2")
    log.set_up("json", "INFO")
    logger, own = logging.getLogger("someones.library"), logging.StreamHandler(sys.stderr)
    logger.addHandler(own)
    try:
        raise ValueError("canary-token-2")
    except ValueError:
        logger.exception("with %s", "canary-token-2")
    finally:
        logger.removeHandler(own)
    errors = capsys.readouterr().err
    assert "ValueError: ***" in errors
    assert "canary" not in errors


def test_no_secret_is_in_the_last_words_of_a_thread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-token-2")
    log.set_up("json", "INFO")
    thread = threading.Thread(target=lambda: int("canary-token-2"))
    thread.start()
    thread.join()
    said = capsys.readouterr()
    assert "a thread ended" in said.out
    assert "canary" not in said.out + said.err


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("json", "INFO")
    logging.getLogger("someones.library").info("chatter")
    assert capsys.readouterr().out == ""


def test_an_error_of_many_lines_is_said_on_one_and_cut_where_it_is_too_long() -> None:
    error = ValueError("first\n   second\tthird\n")
    assert log.one_line(error) == log.one_line(error, 18) == "first second third"
    assert log.one_line(error, 9) == "first sec"
    assert log.one_line(error, 9, ending="…") == "first se…"
    assert log.one_line(ValueError()) == ""


def test_nothing_that_a_terminal_obeys_reaches_it() -> None:
    hostile = "a\x1b]52;c;ZXZpbA==\x07\x1b[8mhidden\x9b1m\x00\r\x7f\u202egnp\u2066\n\tb é 日"
    shown = for_terminal(hostile)
    assert not any(unicodedata.category(c) == "Cc" for c in shown if c not in "\n\t")
    assert not {"\u202e", "\u2066"} & {*shown}
    assert shown.endswith("\n\tb é 日")
    assert len(shown) == len(hostile)


def test_on_a_terminal_sentences_are_broken_between_words_and_what_is_copied_is_not() -> None:
    main, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 40))
    with os.fdopen(end, "w") as screen:
        log.set_up("text", "INFO", screen)
        said = logging.getLogger("trainer.x")
        said.info("held out: nothing: all 60 records are trained")
        said.info("ask it: python entrypoint.py ask --adapter results", extra=log.copied())
        said.info("of\n2 lines, as a library wrote them to be seen")
        screen.flush()
        lines = os.read(main, 4096).decode().split("\r\n")
    os.close(main)
    assert [line[10:] for line in lines[:2]] == ["held out: nothing: all 60", "records are trained"]
    assert lines[1].startswith(" " * 10)
    assert lines[2][10:] == "ask it: python entrypoint.py ask --adapter results"
    assert [lines[3][10:], lines[4]] == ["of", "2 lines, as a library wrote them to be seen"]
