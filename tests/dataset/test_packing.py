"""Examples become token blocks: what is trained, where it is cut, and what never mixes."""

import hashlib
import random

import numpy as np
import pytest
import torch
from support.corpora import Encoded, encode, hold_out, pack, read_corpus
from support.jobs import ROOT
from support.tokenizers import BUILD, PROSE, _bytes_bpe, make_tokenizer
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.corpus.examples import Completion, Conversation, Example, Message, Text
from trainer.corpus.reader import Source
from trainer.dataset import packing
from trainer.errors import DataError, SettingsError
from trainer.tokenization.chat_template import FALLBACK_TEMPLATE, ensure_chat_template
from trainer.tokenization.record_tokenizer import prompt_ids, question_ids, stop_ids

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
INST = (  # the shape of Llama-2-chat: a space, not a line, between question and answer
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content"
    " + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINK = (  # the shape of Qwen3: a finished turn holds more than the generation prompt
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
OPEN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"  # no end token
TEMPLATES = {"fallback": None, "chatml": CHATML, "inst": INST, "think": THINK, "open": OPEN}


@pytest.fixture(scope="module", params=["bytes", "llama", "legacy"])
def tokenizer(request):
    return make_tokenizer(request.param)


@pytest.fixture(scope="module")
def llama():
    return make_tokenizer("llama")


def asked(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def one(example: Example, tokenizer, max_length: int = 4096) -> Encoded:
    (encoded,), _ = encode([example], tokenizer, max_length)
    return encoded


def trained_ids(encoded: Encoded) -> list[int]:
    return [label for label in encoded.labels if label != -100]


# -- records ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(kind, name) for kind in BUILD for name in TEMPLATES])
def worded(request):
    kind, name = request.param
    return make_tokenizer(kind, TEMPLATES[name])


def test_the_question_at_inference_is_exactly_the_start_of_what_was_trained(worded):
    for question, answer in [("What is 2?", "Two"), ("</s><s>?", " <|end|>x"), ("é😀\n\n", "▁ ü")]:
        encoded = one(asked(question, answer), worded)
        prompt = question_ids(worded, question)
        first_trained = next(at for at, label in enumerate(encoded.labels) if label != -100)
        assert encoded.input_ids[:first_trained] == prompt
        assert encoded.labels[first_trained:] == encoded.input_ids[first_trained:]


def test_the_last_trained_token_is_the_one_that_stops_generation(worded):
    encoded = one(asked("Why?", "Because."), worded)
    end = "<|end|>" if "<|end|>" in (worded.chat_template or "") else "</s>"
    assert encoded.labels[-1] == worded.convert_tokens_to_ids(end)
    assert encoded.labels[-1] in stop_ids(worded)
    assert worded.eos_token_id in stop_ids(worded)


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("template", [FALLBACK_TEMPLATE, CHATML, INST, THINK])
def test_ordinary_words_get_the_ids_of_the_tokenizers_own_template(kind, template):
    tokenizer = make_tokenizer(kind, template)
    turns = [("user", "What is an answer?"), ("assistant", "12 hours"), ("user", "The fox")]
    messages = [*turns, ("assistant", "jumps over")]
    expected = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        return_dict=False,
    )
    conversation = Conversation(tuple(Message(*turn) for turn in messages))
    input_ids = one(conversation, tokenizer).input_ids
    assert input_ids == expected[: len(input_ids)]
    assert tokenizer.decode(expected[len(input_ids) :]).strip() == ""


def test_special_tokens_inside_contents_stay_text(worded):
    content = "a</s>b<|end|>c<s><pad>"
    plain, hostile = one(asked("a", "b"), worded), one(asked(content, content), worded)
    special = set(worded.all_special_ids)

    def specials(encoded: Encoded) -> list[int]:
        return [token for token in encoded.input_ids if token in special]

    assert specials(hostile) == specials(plain)
    assert worded.decode(hostile.input_ids).count(content) == 2


def test_every_answer_is_trained_with_its_end_and_nothing_else_is(llama):
    turns = ("system", "Be brief."), ("user", "One?"), ("assistant", " 1 "), ("user", "Two?")
    conversation = Conversation(
        tuple(Message(*turn) for turn in (*turns, ("assistant", "2"), ("user", "Bye")))
    )
    encoded = one(conversation, llama)
    assert llama.decode(trained_ids(encoded)) == "1</s>2</s>"
    assert llama.decode(encoded.input_ids) == (
        "<s>Be brief.\n\n### Question:\nOne?\n\n### Answer:\n1</s>\n"
        "### Question:\nTwo?\n\n### Answer:\n2</s>"
    )


def test_what_the_template_adds_to_the_generation_prompt_is_trained():
    tokenizer = make_tokenizer("llama", THINK)
    encoded = one(asked("Why?", "So."), tokenizer)
    assert tokenizer.decode(trained_ids(encoded)) == "<think>\n\n</think>\n\nSo.<|end|>"


def test_a_completion_is_trained_with_eos_and_its_prompt_is_not(tokenizer):
    example = Completion("The quick </s>", " brown fox")
    encoded = one(example, tokenizer)
    given = prompt_ids(tokenizer, example)
    assert encoded.input_ids[: len(given)] == given
    assert encoded.labels[: len(given)] == [-100] * len(given)
    assert tokenizer.decode(given, skip_special_tokens=True).strip() == "The quick </s>"
    assert tokenizer.decode(trained_ids(encoded)).strip() == "brown fox</s>"
    assert given[0] == tokenizer("The")["input_ids"][0]


def test_white_space_that_a_special_token_swallows_is_swallowed():
    tokenizer = make_tokenizer("llama", CHATML)
    before = len(question_ids(tokenizer, "Why?"))
    tokenizer.add_tokens([AddedToken("<|assistant|>", special=True, rstrip=True)])
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], add_generation_prompt=True, return_dict=False
    )
    assert question_ids(tokenizer, "Why?") == expected
    assert len(expected) < before


def test_the_fallback_template_is_set_once_and_says_why(llama):
    fresh = make_tokenizer("llama")
    assert "no chat template" in (ensure_chat_template(fresh) or "")
    assert fresh.chat_template == FALLBACK_TEMPLATE
    assert ensure_chat_template(fresh) is None
    assert question_ids(fresh, "Why?") == question_ids(llama, "Why?")


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day():
    tokenizer = make_tokenizer("llama", "{{ strftime_now('%d %b %Y') }}" + OPEN)
    assert tokenizer.decode(question_ids(tokenizer, "Why?")).startswith("26 Jul 2024")


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ raise_exception('no system turns') }}", r"refuses.*system, user.*no system turns"),
        ("{{ messages[-1].content }}", r"leaves out a turn of system, user, assistant"),
    ],
)
def test_a_template_that_cannot_word_the_turns_is_named(template, words):
    tokenizer = make_tokenizer("llama", template)
    turns = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    with pytest.raises(DataError, match=words):
        encode([Conversation(turns)], tokenizer, 64)


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(SettingsError, match="no end token"):
        encode([Text("a")], PreTrainedTokenizerFast(tokenizer_object=_bytes_bpe()), 64)


def test_a_long_record_loses_its_end_and_is_counted(llama):
    (encoded,), counts = encode([asked("Why?", PROSE * 3)], llama, 64)
    assert len(encoded.input_ids) == len(encoded.labels) == 64
    assert (counts.truncated, counts.fully_masked) == (1, 0)


def test_a_record_without_a_trained_token_is_dropped_and_counted(llama):
    examples = [asked("Why?", f"Because {n}.") for n in range(9)] + [asked(PROSE * 3, "Yes")]
    encoded, counts = encode(examples, llama, 64)
    assert (len(encoded), counts.fully_masked) == (9, 1)
    assert counts.longest_prompt == len(question_ids(llama, PROSE * 3))


# -- documents ----------------------------------------------------------------------------


def test_a_short_document_is_trained_whole_with_its_end(tokenizer):
    encoded = one(Text("The </s> fox"), tokenizer)
    bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    assert encoded.labels == ([-100] * bos) + encoded.input_ids[bos:]
    assert encoded.input_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(encoded.input_ids[bos:]).strip() == "The </s> fox</s>"


def test_pieces_of_a_long_document_begin_at_words_and_lose_nothing(tokenizer):
    text = "".join(f"Paragraph {n} é😀 {PROSE}" for n in range(30))
    encoded, _ = encode([Text(text)], tokenizer, 64)
    bos = len(tokenizer("a")["input_ids"]) - len(tokenizer.tokenize("a"))
    assert all(len(piece.input_ids) <= 64 for piece in encoded)
    assert [piece.input_ids[-1] == tokenizer.eos_token_id for piece in encoded] == (
        [False] * (len(encoded) - 1) + [True]
    )
    joint = [token for piece in encoded for token in piece.input_ids[bos:]][:-1]
    assert joint == tokenizer(text, add_special_tokens=False)["input_ids"]
    words = set(text.split())
    for piece in encoded:
        body = tokenizer.decode(piece.input_ids, skip_special_tokens=True)
        assert set(body.split()) <= words
    assert {piece.key for piece in encoded} == {Text(text).key}


def test_a_piece_begins_at_a_paragraph_where_one_is_near(llama):
    paragraph = "The fox jumps over the lazy dog. " * 2 + "\n\n"
    length = len(llama(paragraph)["input_ids"])
    encoded, _ = encode([Text(paragraph * 8)], llama, 2 * length + 2)
    for piece in encoded:
        assert llama.decode(piece.input_ids, skip_special_tokens=True).startswith("The fox")


def read_document(folder, name: str, content: str) -> Text:
    path = folder / name
    path.write_text(content)
    (document,) = read_corpus([Source(name, path)]).examples
    assert isinstance(document, Text)
    return document


def test_a_piece_inside_a_section_is_preceded_by_its_headings_which_are_not_trained(
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


def test_a_piece_begins_at_a_sentence_where_no_line_is_near(llama):
    text = " ".join(f"Sentence {n} has some words in it." for n in range(60))
    encoded, _ = encode([Text(text)], llama, 96)
    assert len(encoded) > 3
    for piece in encoded:
        body = llama.decode(piece.input_ids, skip_special_tokens=True)
        assert body.strip().startswith("Sentence")


@pytest.mark.parametrize("max_length", [64, 512])
def test_no_piece_of_real_documents_begins_in_mid_word(llama, tmp_path, max_length):
    for path in sorted((ROOT / "examples/data/handbook").glob("*.md")):
        text = path.read_text()
        document = read_document(tmp_path, path.name, text)
        encoded, _ = encode([document], llama, max_length)
        bodies = [llama.decode(trained_ids(p)).removesuffix("</s>") for p in encoded]
        words = [word for body in bodies for word in body.split()]
        assert words == text.split()


def test_of_a_single_document_both_parts_keep_their_headings(tmp_path):
    text = "\n# One\n\n" + "word " * 300 + "\n\n# Two\n" + "word " * 40
    ((head,), (tail,)) = hold_out([read_document(tmp_path, "a.md", text)])
    assert [head.text[h.at :][:5] for h in head.headings] == ["# One"]
    assert [tail.text[h.at :][:5] for h in tail.headings] == ["# Two"]


@pytest.mark.parametrize("text", ["x" * 3000, "é😀" * 500, "狐狸" * 700, "a " + "b" * 900])
def test_a_word_longer_than_a_block_is_cut_and_keeps_every_token(tokenizer, text):
    encoded, _ = encode([Text(text)], tokenizer, 32)
    bos = len(tokenizer("a")["input_ids"]) - len(tokenizer.tokenize("a"))
    assert all(1 < len(piece.input_ids) <= 32 for piece in encoded)
    joint = [token for piece in encoded for token in piece.input_ids[bos:]][:-1]
    assert tokenizer.decode(joint).strip() == text


def test_eos_never_stands_alone(llama):
    words = "fox " * 200
    ids = llama(words, add_special_tokens=False)["input_ids"]
    for max_length in range(16, 40):
        encoded, _ = encode([Text(words)], llama, max_length)
        assert all(len(piece.input_ids) > 2 for piece in encoded)
        assert sum(len(piece.input_ids) - 1 for piece in encoded) == len(ids) + 1


def test_a_book_is_tokenised_in_slices_without_losing_text(llama):
    book = PROSE * 600
    encoded, _ = encode([Text(book)], llama, 512)
    read = "".join(llama.decode(piece.input_ids, skip_special_tokens=True) for piece in encoded)
    assert "".join(read.split()) == "".join(book.split())
    assert sum(llama.eos_token_id in piece.input_ids for piece in encoded) == 1


def test_examples_of_all_kinds_keep_their_order(llama):
    examples = [Text("a"), asked("b", "c"), Text("d"), Completion("e", "f")]
    encoded, _ = encode(examples, llama, 64)
    assert [sequence.key for sequence in encoded] == [example.key for example in examples]


# -- hold out -----------------------------------------------------------------------------


def documents(count: int) -> list[Example]:
    return [Text(f"document {number}") for number in range(count)]


def test_about_the_share_is_held_out_and_adding_data_moves_nothing():
    train, held_out = hold_out(documents(2000))
    assert 150 < len(held_out) < 250
    grown_train, grown_held_out = hold_out(documents(3000))
    assert set(train) <= set(grown_train)
    assert set(held_out) <= set(grown_held_out)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_neither_side_is_empty_from_two_examples_on(count, share):
    train, held_out = hold_out(documents(count), share)
    assert train and held_out
    assert sorted(e.key for e in train + held_out) == sorted(e.key for e in documents(count))


def test_of_a_single_document_the_end_is_held_out():
    text = PROSE * 5
    ((head,), (tail,)) = hold_out([Text(text)])
    assert isinstance(head, Text) and isinstance(tail, Text)
    assert head.text.endswith("question.") and text.strip().endswith(tail.text)
    assert "".join((head.text + tail.text).split()) == "".join(text.split())
    assert 0.05 < len(tail.text) / len(text) < 0.3


@pytest.mark.parametrize("example", [asked("q", "a"), Text("word")])
def test_what_cannot_be_divided_is_trained(example):
    assert hold_out([example]) == ([example], [])


def test_nothing_divides_into_nothing():
    assert hold_out([]) == ([], [])


# -- pack ---------------------------------------------------------------------------------


def sequences(*lengths: int) -> list[Encoded]:
    ids = iter(range(10, 10**6))
    made = []
    for length in lengths:
        input_ids = [next(ids) for _ in range(length)]
        made.append(Encoded(input_ids, list(input_ids), hashlib.sha256(b"").hexdigest()))
    return made


def test_a_block_restarts_positions_and_masks_first_labels_and_padding():
    (block,) = pack(sequences(3, 2), 8, pad_id=0)
    assert block.input_ids.tolist() == [10, 11, 12, 13, 14, 0, 0, 0]
    assert block.labels.tolist() == [-100, 11, 12, -100, 14, -100, -100, -100]
    assert block.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]


def test_packing_keeps_every_sequence_and_wastes_little():
    chance = random.Random(5)
    lengths = [chance.randint(2, 100) for _ in range(3000)]
    blocks = pack(sequences(*lengths), 128, pad_id=0)
    kept = np.concatenate([block.input_ids for block in blocks])
    assert sorted(kept[kept > 0]) == list(range(10, 10 + sum(lengths)))
    assert all(
        len(column) == 128 and column.dtype == np.int64
        for block in blocks
        for column in (block.input_ids, block.labels, block.position_ids)
    )
    assert len(blocks) <= 1.01 * sum(lengths) / 128 + 1


def test_packing_is_the_same_every_time():
    first, second = (pack(sequences(5, 3, 3, 2, 7), 8, pad_id=0) for _ in range(2))
    assert [b.input_ids.tolist() for b in first] == [b.input_ids.tolist() for b in second]


def test_each_sequence_goes_where_the_least_room_is_left():
    blocks = pack(sequences(6, 5, 3, 2), 8, pad_id=0)
    assert [np.count_nonzero(block.input_ids) for block in blocks] == [8, 8]


def test_a_sequence_longer_than_a_block_is_an_error():
    with pytest.raises(ValueError, match="9 tokens does not fit a block of 8"):
        pack(sequences(9), 8, pad_id=0)


def test_no_sequences_give_no_blocks(llama):
    encoded, _ = encode([], llama, 64)
    packed = pack(encoded, 64, pad_id=0)
    assert (list(packed), packed.padding_share) == ([], 0)


def test_blocks_are_a_sequence_and_know_their_padding():
    packed = pack(sequences(60, 50, 3), 64, pad_id=0)
    assert packed.padding_share == pytest.approx(1 - 113 / 128)
    assert [block.input_ids[0] for block in packed[:]] == [10, 70]
    assert packed[-1].input_ids[0] == 70
    with pytest.raises(IndexError):
        packed[2]


def test_more_sequences_than_are_packed_together_lose_none(monkeypatch):
    lengths = [random.Random(3).randint(2, 30) for _ in range(500)]
    monkeypatch.setattr(packing, "_PACKED_TOGETHER", 128)
    kept = np.concatenate([block.input_ids for block in pack(sequences(*lengths), 32, pad_id=0)])
    assert sorted(kept[kept > 0]) == list(range(10, 10 + sum(lengths)))


def test_attention_stays_inside_a_sequence_of_a_block(llama):
    """A packed sequence's summed loss is its loss alone: no attention mask is passed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(llama),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()

    def summed_loss(**columns: list[int]) -> float:
        batch = {name: torch.tensor([column]) for name, column in columns.items()}
        with torch.no_grad():
            labels = batch.pop("labels")
            logits = model(**batch, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
        ).item()

    examples = [asked("Why?", "Because."), Text("The lazy dog sleeps."), Completion("A", " b")]
    encoded, _ = encode(examples, llama, 96)
    (block,) = pack(encoded, 96, llama.pad_token_id)
    start = 0
    for sequence in sorted(encoded, key=lambda s: -len(s.input_ids)):
        end = start + len(sequence.input_ids)
        mine = np.full_like(block.labels, -100)
        mine[start:end] = block.labels[start:end]
        packed = summed_loss(
            input_ids=block.input_ids.tolist(),
            position_ids=block.position_ids.tolist(),
            labels=mine.tolist(),
        )
        alone = summed_loss(input_ids=sequence.input_ids, labels=sequence.labels)
        assert packed == pytest.approx(alone, abs=1e-5, rel=1e-5)
        start = end
    assert start < 96, "the block should end in padding"
