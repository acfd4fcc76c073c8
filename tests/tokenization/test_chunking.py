"""A chunk begins where the document has a border, and never inside a word that fits."""

import re
from bisect import bisect_left

import pytest
from support.corpora import encode, read_document
from support.jobs import ROOT
from support.records import trained_ids

from trainer.corpus.examples import Text
from trainer.corpus.headings import Outline, markdown_headings
from trainer.tokenization.chunking import best_boundary, text_boundary


def test_a_chunk_begins_at_a_paragraph_where_one_is_near(llama):
    paragraph = "The fox jumps over the lazy dog. " * 2 + "\n\n"
    length = len(llama(paragraph)["input_ids"])
    encoded, _ = encode([Text(paragraph * 8)], llama, 2 * length + 2)
    for chunk in encoded:
        assert llama.decode(chunk.input_ids, skip_special_tokens=True).startswith("The fox")


def test_a_chunk_begins_at_a_sentence_where_no_line_is_near(llama):
    text = " ".join(f"Sentence {n} has some words in it." for n in range(60))
    encoded, _ = encode([Text(text)], llama, 96)
    assert len(encoded) > 3
    for chunk in encoded:
        body = llama.decode(chunk.input_ids, skip_special_tokens=True)
        assert body.strip().startswith("Sentence")


@pytest.mark.parametrize("max_length", [64, 512])
def test_no_chunk_of_real_documents_begins_in_mid_word(llama, tmp_path, max_length):
    for path in sorted((ROOT / "examples/data/handbook").glob("*.md")):
        text = path.read_text()
        document = read_document(tmp_path, path.name, text)
        encoded, _ = encode([document], llama, max_length)
        bodies = [llama.decode(trained_ids(p)).removesuffix("</s>") for p in encoded]
        words = [word for body in bodies for word in body.split()]
        assert words == text.split()


@pytest.mark.parametrize("text", ["x" * 3000, "é😀" * 500, "狐狸" * 700, "a " + "b" * 900])
def test_a_word_longer_than_a_block_is_divided_and_keeps_every_token(any_tokenizer, text):
    encoded, _ = encode([Text(text)], any_tokenizer, 32)
    bos = len(any_tokenizer("a")["input_ids"]) - len(any_tokenizer.tokenize("a"))
    assert all(1 < len(chunk.input_ids) <= 32 for chunk in encoded)
    joint = [token for chunk in encoded for token in chunk.input_ids[bos:]][:-1]
    assert any_tokenizer.decode(joint).strip() == text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("one two\n\nthree four", "one two\n\n"),
        ("one two three\nfour five", "one two three\n"),
        ("one two three four five", "one two three four "),
        ("x" * 30, "x" * 20),
    ],
)
def test_a_text_is_divided_behind_a_paragraph_a_line_or_a_word(text, expected):
    assert text[: text_boundary(text, 0, 20, near_share=3 / 4)] == expected


def test_a_chunk_begins_at_a_section_even_where_a_paragraph_is_nearer():
    text = "word " * 60 + "\n# Two\nword\n\n" + "word " * 8
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    paragraph = bisect_left(starts, text.index("\n\n"))
    high = paragraph + 1
    section = starts.index(text.index("# Two"))
    outline = Outline(markdown_headings(text))
    assert best_boundary(text, starts, 0, high, outline, 0) == section
    assert best_boundary(text, starts, 0, high, Outline(()), 0) == paragraph
