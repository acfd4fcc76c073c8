"""A chat template that does not end is ended, wherever it is rendered; others do not notice."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message
from trainer.errors import Interrupted, SettingsError
from trainer.runtime import signals
from trainer.tokenization import template_limits
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.template_limits import check_template, within_limits

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def forever() -> str:
    while True:
        pass


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MOST_S", 0.3)


def test_what_takes_too_long_is_ended_in_whichever_thread_it_is() -> None:
    with pytest.raises(SettingsError, match="chat template did not end within"):
        within_limits(forever)
    with ThreadPoolExecutor(2) as threads:
        slow, quick = threads.submit(within_limits, forever), threads.submit(within_limits, str)
        assert quick.result() == ""
        with pytest.raises(SettingsError, match="chat template did not end within"):
            slow.result()
    assert within_limits(lambda: "text") == "text"


def test_many_that_end_are_left_alone() -> None:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert within_limits(lambda: "text") == "text"


def test_a_template_that_never_ends_ends_the_run() -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.chat_template = ENDLESS + "{{ messages }}"
    with pytest.raises(SettingsError, match="chat template did not end within"):
        RecordTokenizer(tokenizer)


def test_one_that_ends_only_for_some_words_ends_it_too() -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'trap' in m.content %}" + ENDLESS + "{% endif %}"
        "{{ m.role + m.content + eos_token }}{% endfor %}"
    )
    records = RecordTokenizer(tokenizer)

    def encoded(question: str) -> bool:
        turns = Message("user", question), Message("assistant", "yes")
        return bool(records.encode([Conversation(turns)])[0].sequences)

    assert encoded("a word")
    with pytest.raises(SettingsError, match="chat template did not end within"):
        encoded("a trap")


def test_a_signal_ends_a_rendering_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MOST_S", 60)
    monkeypatch.setattr(signals, "_requested", signal.SIGTERM)
    with ThreadPoolExecutor(1) as threads, pytest.raises(Interrupted):
        threads.submit(within_limits, forever).result(timeout=30)


@pytest.mark.parametrize(
    "template", ["a\n{{ 9 ** 9 ** 9 }}", "\n{{ n * n }}", "\n{% generation %}{{ 1|round(9) }}"]
)
def test_steps_that_may_take_any_time_are_refused_with_their_line(template: str) -> None:
    closed = template + "{% endgeneration %}" * ("generation" in template)
    with pytest.raises(SettingsError, match="line 2 of the base model's chat template computes"):
        check_template(closed)


def test_what_templates_do_is_not_refused() -> None:
    check_template("{{ '-' * width }}{{ loop.index0 % 2 }}{% for m in messages %}{% break %}")
    check_template("{% for")  # refused where it is rendered
