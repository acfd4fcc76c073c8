"""Answers and their ends are trained, and nothing else of a conversation is."""

from support.records import THINK, asked, one, trained_ids
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message


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
