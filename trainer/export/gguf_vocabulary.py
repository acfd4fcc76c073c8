"""A tokenizer as llama.cpp keeps it in a GGUF file."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# llama.cpp has the splitting of each family in its code, under a name; a file holds the name. What
# tokenizer.json says is the key: ByteLevel alone is "words" where it splits by GPT-2's pattern.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORDS += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SEED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}"
_SEED += r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_TEKKEN += r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    ("words",): "gpt-2",
    ("digits", "words"): "smollm",
    (_WORDS % r"\p{N}{1,3}", "bytes"): "dbrx",  # of cl100k: Phi-4, OLMo 2
    (_WORDS % r"\p{N}", "bytes"): "qwen2",
    (_SEED, "bytes"): "seed-coder",
    (_TEKKEN, "bytes"): "tekken",
}
WHOLE_WORDS = {"dbrx": "llama-bpe"}  # the same, but a word of the vocabulary is not put together


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id with their kinds (`gguf.TokenType`), and how text is split into them.

    `model` is "gpt2" (byte-level, by merges) or "llama" (SentencePiece, by scores).
    """

    model: str
    pre_tokenizer: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool = False  # before a text, and before what follows a special token


def vocabulary_of(tokenizer: "PreTrainedTokenizerBase", size: int) -> Vocabulary:
    """`tokenizer`'s, filled up to the `size` rows of the embedding.

    Raises SettingsError for a kind of tokenizer that llama.cpp could not split text with.
    """
    backend: Any = tokenizer
    record = json.loads(backend.backend_tokenizer.to_str())
    if record["model"]["type"] != "BPE":
        raise SettingsError(_refusal(record["model"]["type"]))
    words = (
        max([*record["model"]["vocab"].values(), *(a["id"] for a in record["added_tokens"])]) + 1
    )
    if words > size:
        raise SettingsError(
            f"this base model's tokenizer has {words} words and its embedding {size}, which export "
            "cannot write; use the tokenizer that the model was trained with"
        )
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in record["model"]["merges"]
    ]
    by_scores = bool(record["model"].get("byte_fallback"))
    tokens, kinds = _tokens(record, size, by_scores)
    if by_scores:
        scores, space = _scores(tokens, merges), _starts_with_space(backend)
        return Vocabulary("llama", "default", tokens, kinds, [], scores, space)
    return Vocabulary("gpt2", _pre_tokenizer(record), tokens, kinds, merges, [])


def _tokens(record: dict[str, Any], size: int, by_scores: bool) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    tokens = [f"[PAD{at}]" for at in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    for token, at in record["model"]["vocab"].items():
        is_byte = by_scores and token.startswith("<0x") and len(token) == len("<0x0A>")
        tokens[at], kinds[at] = token, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in record["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(kind)
    if by_scores and (unknown := record["model"].get("unk_token")):
        kinds[tokens.index(unknown)] = int(TokenType.UNKNOWN)
    return tokens, kinds


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """The order of the merges, as SentencePiece scores them: the earlier, the higher."""
    made: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        made.setdefault(merge.replace(" ", ""), rank)
    return [-float(made.get(token, 0)) for token in tokens]


def _starts_with_space(tokenizer: Any) -> bool:
    """Older conversions of SentencePiece do it behind each special token, newer ones do not, and
    Gemma's nowhere."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    behind = tokenizer(tokenizer.eos_token + "a", add_special_tokens=False)["input_ids"]
    starts = tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")
    return bool(starts and behind[1:] == alone)


def _pre_tokenizer(record: dict[str, Any]) -> str:
    step = record["pre_tokenizer"] or {}
    steps = tuple(_step(s) for s in step.get("pretokenizers", [step]))
    if steps not in PRE_TOKENIZERS:
        raise SettingsError(_refusal(" + ".join(steps)))
    name = PRE_TOKENIZERS[steps]
    return WHOLE_WORDS.get(name, name) if record["model"].get("ignore_merges") else name


def _step(step: dict[str, Any]) -> str:
    kind = step.get("type", "none")
    if kind == "Digits" and step["individual_digits"]:
        return "digits"
    if kind == "ByteLevel" and not step["add_prefix_space"]:
        return "words" if step["use_regex"] else "bytes"
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        pattern = str(step["pattern"].get("Regex"))
        return pattern.replace("\r", r"\r").replace("\n", r"\n")  # some files have the signs
    return str(kind)


def _refusal(what: str) -> str:
    return (
        f"this base model's tokenizer ({what}) is not one that export can write; use `merge` and "
        "then llama.cpp's convert_hf_to_gguf.py"
    )
