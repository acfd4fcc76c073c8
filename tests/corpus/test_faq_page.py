"""The questions that a page says of itself are conversations, beside what it shows."""

import json

import pytest
from support.corpora import read_files

from trainer.corpus.examples import Conversation, Message, Text

ASKED = {
    "@type": "Question",
    "name": "Who may borrow?",
    "acceptedAnswer": {"@type": "Answer", "text": "<p>Anyone &amp; <b>everyone</b>.</p>"},
}
PAGE = {"@context": "https://schema.org", "@type": "FAQPage", "mainEntity": [ASKED]}
ANSWERED = Conversation(
    (Message("user", "Who may borrow?"), Message("assistant", "Anyone & **everyone**."))
)


@pytest.mark.parametrize(
    "data",
    [
        PAGE,
        [{"@type": "Organization", "name": "Shed"}, PAGE],
        {"@graph": [{"@type": "WebSite"}, PAGE]},
        {"@type": ["WebPage", "FAQPage"], "mainEntity": ASKED},
    ],
)
def test_a_faq_page_in_json_is_its_questions(tmp_path, data):
    assert read_files(tmp_path, {"a.json": json.dumps(data).encode()}).examples == [ANSWERED]


def test_the_title_of_a_question_is_not_all_that_is_asked(tmp_path):
    asked = ASKED | {"name": "Borrowing", "text": "<p>Who may borrow?</p>"}
    data = {"@type": "QAPage", "mainEntity": asked}
    (found,) = read_files(tmp_path, {"a.json": json.dumps(data).encode()}).examples
    assert found.messages[0].content == "Borrowing\n\nWho may borrow?"


def page(script: str) -> bytes:
    return f"<head><script type='application/ld+json'>{script}</script></head><p>Hi there".encode()


def test_a_page_is_read_with_the_questions_that_it_holds(tmp_path):
    corpus = read_files(tmp_path, {"a.html": page(json.dumps(PAGE))})
    assert corpus.examples == [ANSWERED, Text("Hi there")]


def test_what_the_questions_say_is_not_read_again_as_prose(tmp_path):
    said = "<h1>FAQ</h1><h2>Who may borrow?</h2><p>Anyone &amp; <em>everyone</em>.</p>"
    content = page(json.dumps(PAGE)).replace(b"<p>Hi there", said.encode())
    assert read_files(tmp_path, {"a.html": content}).examples == [ANSWERED]
    more = content + b"<p>Everyone who asks.</p>"
    assert read_files(tmp_path, {"a.html": more}).examples == [
        ANSWERED,
        Text("# FAQ\n\nEveryone who asks."),
    ]


def test_questions_that_cannot_be_read_are_told(tmp_path):
    corpus = read_files(tmp_path, {"a.html": page('{"@type": "FAQPage",')})
    assert corpus.examples == [Text("Hi there")]
    assert corpus.notices == ["a.html: its FAQPage is broken JSON and is not used"]


MICRODATA = """<h1>Help</h1><div itemscope itemtype="https://schema.org/FAQPage">
<div itemscope itemprop="mainEntity" itemtype="https://schema.org/Question">
<h3 itemprop="name">How to return?</h3><div itemscope itemprop="acceptedAnswer"
itemtype="https://schema.org/Answer"><div itemprop="text">Use the <i>label</i>.</div></div></div>
<div itemscope itemprop="mainEntity" itemtype="https://schema.org/Question">
<meta itemprop="name" content="May I swap?"><p>Open.</p></div></div>"""
RDFA = (
    MICRODATA.replace("itemscope", "")
    .replace('itemtype="https://schema.org/', 'typeof="schema:')
    .replace("itemprop", "property")
)
RETURNED = Conversation(
    (Message("user", "How to return?"), Message("assistant", "Use the *label*."))
)


@pytest.mark.parametrize("marked", [MICRODATA, RDFA + "<!-- 'https://schema.org/' -->"])
def test_questions_that_are_marked_in_the_page_are_read(tmp_path, marked):
    corpus = read_files(tmp_path, {"a.html": marked.encode()})
    assert corpus.examples == [RETURNED, Text("# Help\n\nOpen.")]
    assert corpus.notices == [
        "a.html: questions of pages without an accepted answer, read as prose: 1"
    ]


def test_a_question_that_is_marked_twice_is_read_once(tmp_path):
    asked = ASKED | {"name": "How to return?"}
    content = page(json.dumps(PAGE | {"mainEntity": asked})) + MICRODATA.encode()
    found = read_files(tmp_path, {"a.html": content}).examples
    assert [e.messages[0].content for e in found if isinstance(e, Conversation)] == [
        "How to return?"
    ]


def test_answers_behind_the_accepted_one_are_told(tmp_path):
    others = {"suggestedAnswer": [{"text": "Nobody."}, {"text": "Ask."}]}
    asked = [ASKED | others, ASKED | {"name": "Open?"} | others | {"acceptedAnswer": None}]
    data = {"@type": "QAPage", "mainEntity": asked}
    corpus = read_files(tmp_path, {"a.json": json.dumps(data).encode()})
    assert corpus.examples == [ANSWERED]
    assert corpus.notices == [
        "a.json: questions that it says have no answer are left out: 1, first record 2",
        "a.json: not used: answers to a question behind its first one: 2",
    ]
