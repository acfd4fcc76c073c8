"""Special tokens come from the template alone, and swallow what they are declared to."""

from support.corpora import Encoded
from support.records import CHATML, asked, one
from support.tokenizers import make_tokenizer
from tokenizers import AddedToken

from trainer.tokenization.record_tokenizer import question_ids


def test_special_tokens_inside_contents_stay_text(templated_tokenizer):
    content = "a</s>b<|end|>c<s><pad>"
    plain, hostile = (
        one(asked("a", "b"), templated_tokenizer),
        one(asked(content, content), templated_tokenizer),
    )
    special = set(templated_tokenizer.all_special_ids)

    def specials(encoded: Encoded) -> list[int]:
        return [token for token in encoded.input_ids if token in special]

    assert specials(hostile) == specials(plain)
    assert templated_tokenizer.decode(hostile.input_ids).count(content) == 2


def test_white_space_that_a_special_token_swallows_is_swallowed():
    tokenizer = make_tokenizer("llama", CHATML)
    before = len(question_ids(tokenizer, "Why?"))
    tokenizer.add_tokens([AddedToken("<|assistant|>", special=True, rstrip=True)])
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], add_generation_prompt=True, return_dict=False
    )
    assert question_ids(tokenizer, "Why?") == expected
    assert len(expected) < before
