"""A chat template takes so much time and memory and no more, wherever it is rendered; others do not
notice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message
from trainer.errors import Interrupted, SettingsError
from trainer.runtime import signals
from trainer.tokenization import template_process
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.template_process import Refused, rendered

HALF = "\ud800\u2028\n"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS = {  # all but the first are one step of C
    "loops": LOOP,
    "division": "{% set x = ('f' * 20000000)|int(n, 16) %}"
    "{% set y = ('e' * 10000001)|int(n, 16) %}{% set q = x // y %}",
    "rounding": "{{ 1|round(10 ** 9, 'ceil') }}",
    "search": "{% set a = ['a' * 999999 ~ 'b'] %}{{ ('a' * 999999 ~ 'c') in a * 9999999 }}",
}
LARGE = {
    "product": "{{ ('a' ~ n) * 4000000000 }}",
    "constant": "{{ 'a' * 30000000000 }}",
    "filter": "{{ 'a'|center(3000000000) }}",
    "method": "{{ 'a'.ljust(3000000000) }}",
    "format": "{{ '%*d'|format(2000000000, 1) }}",
    "list": "{{ ([n] * 999999999)|length }}",
    "replacement": "{{ ('a' * 999999)|replace('a', 'b' * 99999) }}",
    "growth": "{% set s = namespace(t='aa') %}{% for a in range(40) %}{% set s.t = s.t ~ s.t %}"
    "{% endfor %}{{ s.t }}",
}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time, in which no child has to start."""
    with ThreadPoolExecutor(2) as threads:
        both = threading.Barrier(2)
        list(threads.map(lambda text: (both.wait(), rendered(text, {})), "ab"))
    monkeypatch.setattr(template_process, "MOST_S", 0.6)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Children of this test's own."""
    monkeypatch.setattr(template_process, "_IDLE", idle := [])
    yield
    for child in idle:
        child.end()


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_what_takes_too_long_is_ended(template: str, soon: None) -> None:
    with pytest.raises(SettingsError, match="chat template did not end within"):
        rendered(template, {"n": 1})


@pytest.mark.parametrize("template", LARGE.values(), ids=LARGE)
def test_what_takes_too_much_memory_is_refused(template: str) -> None:
    with pytest.raises(Refused, match="MemoryError"):
        rendered(template, {"n": 1})


def test_others_render_while_one_is_ended(soon: None) -> None:
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(rendered, LOOP, {})
        assert threads.submit(rendered, "{{ a }}", {"a": "text"}).result() == ["text"]
        with pytest.raises(SettingsError, match="chat template did not end within"):
            slow.result()
    assert rendered("{{ a }}", {"a": "text"}, {"a": "b"}) == ["text", "b"]


def test_a_template_that_never_ends_ends_the_run(soon: None) -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.chat_template = LOOP + "{{ messages }}"
    with pytest.raises(SettingsError, match="chat template did not end within"):
        RecordTokenizer(tokenizer)


def test_one_that_ends_only_for_some_words_ends_it_too(soon: None) -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'trap' in m.content %}" + LOOP + "{% endif %}"
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
    monkeypatch.setattr(template_process, "MOST_S", 60)
    monkeypatch.setattr(signals, "_requested", signal.SIGTERM)
    with ThreadPoolExecutor(1) as threads, pytest.raises(Interrupted):
        threads.submit(rendered, LOOP, {}).result(timeout=30)


def test_a_child_that_breaks_down_is_told_and_replaced(alone: None) -> None:
    assert rendered("a", {}) == ["a"]
    (child,) = template_process._IDLE
    child.process.kill()
    child.process.wait()
    with pytest.raises(SettingsError, match="chat template needs more than 512 MiB or breaks do"):
        rendered("a", {})
    assert rendered("a", {}) == ["a"]


def test_one_child_serves_many_templates_one_after_the_other(alone: None) -> None:
    for number in (*range(70), 3, 68):
        assert rendered(f"{number} {{{{ a }}}}", {"a": HALF}) == [f"{number} {HALF}"]
    assert len(template_process._IDLE) == 1


def test_few_children_wait_for_more(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "_MOST_IDLE", 1)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda n: rendered("{{ n }}", {"n": n}), range(9))) == [
            [str(n)] for n in range(9)
        ]
    assert len(template_process._IDLE) <= 1


def test_a_fork_has_a_child_of_its_own(alone: None) -> None:
    rendered("a", {})
    (before,) = template_process._IDLE
    if not (pid := os.fork()):
        os._exit(0 if not template_process._IDLE and rendered("b", {}) == ["b"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rendered("a", {}) == ["a"]
    assert [before] == template_process._IDLE


def test_a_child_ends_with_whoever_asked_it(alone: None) -> None:
    rendered("a", {})
    (child,) = template_process._IDLE
    assert child.process.stdin is not None
    child.process.stdin.close()
    until = time.monotonic() + 20
    while child.process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert child.process.returncode == 0
    template_process._IDLE.clear()
