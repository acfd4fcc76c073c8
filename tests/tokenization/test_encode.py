"""Examples become sequences: what is trained, what is lost and counted, and what stands above."""

from support.corpora import encode, read_document
from support.effort import calls_of
from support.records import asked, one, trained_ids
from support.tokenizers import PROSE

from trainer.corpus.examples import Completion, Text
from trainer.tokenization.record_tokenizer import question_ids


def test_a_long_record_loses_its_end_and_is_counted(llama):
    (encoded,), counts = encode([asked("Why?", PROSE * 3)], llama, 64)
    assert len(encoded.input_ids) == len(encoded.labels) == 64
    assert (counts.truncated, counts.fully_masked) == (1, 0)


def test_a_record_without_a_trained_token_is_dropped_and_counted(llama):
    examples = [asked("Why?", f"Because {n}.") for n in range(9)] + [asked(PROSE * 3, "Yes")]
    encoded, counts = encode(examples, llama, 64)
    assert (len(encoded), counts.fully_masked) == (9, 1)
    assert counts.longest_prompt == len(question_ids(llama, PROSE * 3))


def test_a_short_document_is_trained_whole_with_its_end(any_tokenizer):
    encoded = one(Text("The </s> fox"), any_tokenizer)
    bos = any_tokenizer("a")["input_ids"][:1] == [any_tokenizer.bos_token_id]
    assert encoded.labels == ([-100] * bos) + encoded.input_ids[bos:]
    assert encoded.input_ids.count(any_tokenizer.eos_token_id) == 1
    assert any_tokenizer.decode(encoded.input_ids[bos:]).strip() == "The </s> fox</s>"


def test_chunks_of_a_long_document_begin_at_words_and_lose_nothing(any_tokenizer):
    text = "".join(f"Paragraph {n} é😀 {PROSE}" for n in range(30))
    encoded, _ = encode([Text(text)], any_tokenizer, 64)
    bos = len(any_tokenizer("a")["input_ids"]) - len(any_tokenizer.tokenize("a"))
    assert all(len(chunk.input_ids) <= 64 for chunk in encoded)
    assert [chunk.input_ids[-1] == any_tokenizer.eos_token_id for chunk in encoded] == (
        [False] * (len(encoded) - 1) + [True]
    )
    joint = [token for chunk in encoded for token in chunk.input_ids[bos:]][:-1]
    assert joint == any_tokenizer(text, add_special_tokens=False)["input_ids"]
    words = set(text.split())
    for chunk in encoded:
        body = any_tokenizer.decode(chunk.input_ids, skip_special_tokens=True)
        assert set(body.split()) <= words
    assert {chunk.key for chunk in encoded} == {Text(text).key}


def test_a_chunk_inside_a_section_is_preceded_by_its_headings_which_are_not_trained(
    llama, tmp_path
):
    fox = "The fox jumps over the lazy dog. " * 30
    guide = f"# Guide\n\n{fox}\n\n## Install\n\n{fox}\n\n## Use\n\n{fox}\n"
    encoded, _ = encode([read_document(tmp_path, "a.md", guide)], llama, 128)
    read = [
        (
            llama.decode([t for t, label in zip(p.input_ids, p.labels, strict=True) if label < 0]),
            llama.decode(trained_ids(p)),
        )
        for p in encoded
    ]
    assert read[0][0] == "<s>" and read[0][1].startswith("# Guide\n\nThe fox")
    assert ("<s> Guide\n\n", "## Use") in [(g, t.strip()[:6]) for g, t in read]
    assert {given for given, _ in read} == {
        *("<s>", "<s> Guide\n\n", "<s> Guide > Install\n\n", "<s> Guide > Use\n\n")
    }
    joined = "".join(trained for _, trained in read).removesuffix("</s>")
    assert "".join(joined.split()) == "".join(guide.split())
    assert all(len(p.input_ids) <= 128 for p in encoded)


def test_headings_that_would_take_too_much_of_a_block_are_left_out_from_the_outside(
    llama, tmp_path
):
    fox = "The fox jumps over the lazy dog. " * 30
    text = f"# {'Very long title ' * 12}\n\n## Use\n\n{fox}\n"
    encoded, _ = encode([read_document(tmp_path, "a.md", text)], llama, 128)
    assert llama.decode(encoded[-1].input_ids).startswith("<s> Use\n\n The fox")


def test_eos_never_stands_alone(llama):
    words = "fox " * 200
    ids = llama(words, add_special_tokens=False)["input_ids"]
    for max_length in range(16, 40):
        encoded, _ = encode([Text(words)], llama, max_length)
        assert all(len(chunk.input_ids) > 2 for chunk in encoded)
        assert sum(len(chunk.input_ids) - 1 for chunk in encoded) == len(ids) + 1


def test_a_book_is_tokenised_in_slices_without_losing_text(llama):
    book = PROSE * 600
    encoded, _ = encode([Text(book)], llama, 512)
    read = "".join(llama.decode(chunk.input_ids, skip_special_tokens=True) for chunk in encoded)
    assert "".join(read.split()) == "".join(book.split())
    assert sum(llama.eos_token_id in chunk.input_ids for chunk in encoded) == 1


def test_examples_of_all_kinds_keep_their_order(llama):
    examples = [Text("a"), asked("b", "c"), Text("d"), Completion("e", "f")]
    encoded, _ = encode(examples, llama, 64)
    assert [sequence.key for sequence in encoded] == [example.key for example in examples]


def test_megabytes_of_spaces_are_gone_through_once(llama):
    """For each sequence from its begin to their end would take hours."""

    def effort(spaces: int) -> int:
        return calls_of(lambda: encode([Text("a" + "\n" * spaces)], llama, 64)).total()

    effort(1)
    assert effort(20_000) < 2.5 * effort(10_000)
