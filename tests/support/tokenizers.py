"""Small tokenizers of the kinds that language models have, made on the spot."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from support.records import TEMPLATES

PROSE = (
    "The quick brown fox jumps over the lazy dog, then sleeps for 12 hours.\n"
    "A second line follows it, and after that line there is a gap.\n\n"
    "### Question: what is an answer? ### Answer: whatever ends a question.\n\n"
)
SPECIAL = ["<s>", "</s>", "<pad>", "<|end|>", "<|user|>", "<|assistant|>"]


def bytes_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [PROSE] * 3,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer


def _metaspace_bpe(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer.train_from_iterator(
        PROSE.split("\n"),
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<unk>", *SPECIAL, *byte_tokens], show_progress=False
        ),
    )
    # As in Llama-2: no pre-splitting, and bytes are ordinary tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", left=1),
        ]
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in byte_tokens]
    return Tokenizer.from_str(json.dumps(state))


BUILD = {
    "bytes": bytes_bpe,
    "llama": lambda: _metaspace_bpe("first"),
    "legacy": lambda: _metaspace_bpe("always"),
}


def make_tokenizer(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A small tokenizer; the SentencePiece-like ones put <s> before a text, as Llama's do."""
    backend = BUILD[kind]()
    if kind != "bytes":
        backend.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=template,
    )


@pytest.fixture(scope="module", params=["bytes", "llama", "legacy"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return make_tokenizer(request.param)


@pytest.fixture(scope="module")
def llama() -> PreTrainedTokenizerFast:
    return make_tokenizer("llama")


@pytest.fixture(scope="module", params=[(kind, name) for kind in BUILD for name in TEMPLATES])
def templated_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    kind, name = request.param
    return make_tokenizer(kind, TEMPLATES[name])
