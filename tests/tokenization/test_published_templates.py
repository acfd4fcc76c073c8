"""What is trained and asked is what a model's own template writes: all templates that trl carries,
in every shape of conversation, and where they mark what is generated, the same is trained."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from support.chat_templates import NAMES, template, tokenizer_of
from transformers.utils.chat_template_utils import render_jinja_template

from trainer.corpus.examples import Conversation, Message, ToolCall, Unusable
from trainer.tokenization.chat_template import FIXED_DATE
from trainer.tokenization.record_tokenizer import question_ids, tokenizer_of_records
from trainer.tokenization.special_tokens import Span
from trainer.tokenization.turns import as_turns, thought_of, with_system_in_user

SYSTEM = Message("system", "You are the porter of a small hotel.")
ASK, ANSWER = Message("user", "When is tea?"), Message("assistant", "At four, in the garden.")
MORE, AGAIN = Message("user", "And dinner?"), Message("assistant", "    At seven:\n  soup")
THOUGHT = Message("assistant", "At four.", thought="Tea comes after three.")
THOUGHT_AGAIN = Message("assistant", "At seven.", thought="Soup takes a while.")
INLINE = Message("assistant", "<think>\nTea comes after three.\n</think>\n\nAt four.")
INLINE_AGAIN = Message("assistant", "<think>\nSoup takes a while.\n</think>\n\nAt seven.")
CALL = Message("assistant", "", tool_calls=(ToolCall("rain", '{"town": "Brede"}', "call00001"),))
RESULT = Message("tool", "wet", call_id="call00001", name="rain")
AFTER = Message("assistant", "Take a coat.")
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "rain",
                "description": "Whether it rains in a town.",
                "parameters": {
                    "type": "object",
                    "properties": {"town": {"type": "string", "description": "its name"}},
                    "required": ["town"],
                },
            },
        }
    ]
)
SHAPES = {
    "one round": Conversation((ASK, ANSWER)),
    "system": Conversation((SYSTEM, ASK, ANSWER)),
    "two rounds": Conversation((ASK, ANSWER, MORE, AGAIN)),
    "system, two rounds": Conversation((SYSTEM, ASK, ANSWER, MORE, AGAIN)),
    "thought": Conversation((ASK, THOUGHT)),
    "thought in the content": Conversation((ASK, INLINE)),
    "two thoughts": Conversation((ASK, THOUGHT, MORE, THOUGHT_AGAIN)),
    "two thoughts in the content": Conversation((ASK, INLINE, MORE, INLINE_AGAIN)),
    "system and thought": Conversation((SYSTEM, ASK, THOUGHT)),
    "call": Conversation((ASK, CALL)),
    "call and result": Conversation((ASK, CALL, RESULT, AFTER)),
    "tools, call and result": Conversation((ASK, CALL, RESULT, AFTER), TOOLS),
    "tools, not called": Conversation((ASK, ANSWER), TOOLS),
    "system, tools, call and result": Conversation((SYSTEM, ASK, CALL, RESULT, AFTER), TOOLS),
}


# -- what stays different, and why ---------------------------------------------------------

# The template writes no calls: such records are skipped, named and counted.
NO_CALLS = {
    *("cohere", "cohere2", "cohere2_training", "cohere_training", "deepseek_r1_distill"),
    *("deepseek_r1_distill_training", "gemma", "gemma3", "gemma3_training", "gemma_training"),
    *("idefics3", "idefics3_training", "lfm2", "lfm2_training", "llama3", "llama3_training"),
    *("llava_next", "llava_next_training", "phi3", "phi3_training", "phi3_5", "phi3_5_training"),
    *("qwen2_5_vl", "qwen2_5_vl_training", "smolvlm", "smolvlm_training"),
}
# Ends a last answer with nothing: the end of text is trained behind it, or the bot never stops.
NO_END = {"glm4moe", "glm4moe_training"}
# Cuts the thought off each answer: it is trained as trl's variant of this template words it.
CUTS_THOUGHTS = {"deepseek_r1_distill", "deepseekv3", "deepseekv3_training"}
KEEPS_THOUGHTS = "deepseek_r1_distill_training"
# Opens a thought where an answer is asked for, and has no switch: an answer without one is trained
# and asked for as a finished turn words it, and so does the published template.
OPENS_A_THOUGHT = CUTS_THOUGHTS | {KEEPS_THOUGHTS}
# Asks for nothing behind a result, and begins a turn there once it is finished.
BEGINS_LATE = {"diffusion_gemma", "diffusion_gemma_training"}
# Behind the token that ends an answer: nobody generates it, so it is not trained.
BEHIND = {"", " ", "\n", "\n</s>", "</s>"}
# Inside of trl's mark, and given at inference: (part of) a generation prompt, an empty thought.
GIVEN = {
    *("<|start|>assistant", "<\uff5cAssistant\uff5c>", "<\uff5cAssistant\uff5c><think>\n"),
    *("<think>\n\n</think>\n\n", "<think></think>", "\n<think></think>", "<think>\n", "\n", ""),
    "<\uff5ctool\u2581outputs\u2581end\uff5c>",
}
# Marks an answer without the call or the thought in front of it, and its end apart.
MARKS_PARTS = {"diffusion_gemma_training"}


def test_what_is_trained_and_asked_is_what_the_template_writes():
    found = [difference for name in NAMES for difference in differences(name)]
    assert len(NAMES) == 72
    assert [words for words in found if words] == []
    assert len(found) == 1330  # stretches that are trained, each compared


def test_what_trl_marks_as_generated_is_trained():
    marked = [name for name in NAMES if re.search(r"\{%-? *generation", template(name))]
    found = [difference for name in marked for difference in unmarked(name)]
    assert len(marked) == 34
    assert [words for words in found if words] == []
    assert len(found) == 596


# -- how they are compared -----------------------------------------------------------------


@dataclass(frozen=True)
class Rendered:
    """By transformers: a whole conversation, and what asks for its last answer."""

    turns: list[dict[str, Any]]
    whole: str
    asked: str
    thinks: bool


def rendered(name: str, conversation: Conversation, by: str = "") -> Rendered:
    """Without a line of ours but the fixed date, and in what fields a turn is given."""
    style = tokenizer_of_records(tokenizer_of(name)).template.style
    messages = conversation.messages
    if not style.has_system:
        messages = with_system_in_user(messages)
    told = json.dumps(as_turns(messages, style, lambda _at, text: text))
    turns = json.loads(told.replace("\\uf8fe", "</think>"))
    thinks = any(map(thought_of, messages))

    def render(turns: list[dict[str, Any]], generation: bool = False) -> str:
        return str(
            tokenizer_of(by or name).apply_chat_template(
                turns,
                json.loads(conversation.tools) if conversation.tools else None,
                chat_template=FIXED_DATE + template(by or name),
                tokenize=False,
                add_generation_prompt=generation,
                enable_thinking=thinks,
            )
        )

    return Rendered(turns, render(turns), render(turns[:-1], generation=True), thinks)


def stretches(spans: list[Span]) -> list[tuple[str, bool]]:
    """(text, whether it is trained) of neighbours."""
    found: list[tuple[str, bool]] = []
    for span in spans:
        if found and found[-1][1] == span.trained:
            found[-1] = (found[-1][0] + span.text, span.trained)
        elif span.text:
            found.append((span.text, span.trained))
    return found


def differences(name: str) -> Iterator[str]:
    """One for each stretch that is trained, empty where there is none."""
    tokenizer = tokenizer_of(name)
    records = tokenizer_of_records(tokenizer)
    for shape, conversation in SHAPES.items():
        calls = any(m.tool_calls for m in conversation.messages)
        try:
            sequences = [stretches(spans) for spans in records.spans(conversation)]
        except Unusable as refused:
            if not (calls and name in NO_CALLS):
                yield f"{name}, {shape}: {refused}"
            continue
        by = KEEPS_THOUGHTS if name in CUTS_THOUGHTS and "thought" in shape else ""
        expected = rendered(name, conversation, by)
        # Of several sequences the others end with an earlier answer.
        ends = [at for at, m in enumerate(conversation.messages) if m.role == "assistant"]
        for found, last in zip(sequences, ends[-len(sequences) :], strict=True):
            upto = Conversation(conversation.messages[: last + 1], conversation.tools)
            for words in compared(name, found, rendered(name, upto, by), calls):
                yield words and f"{name}, {shape}: {words}"
            earlier = [text for text, is_trained in found if is_trained][:-1]
            for text, at in zip(earlier, ends, strict=False):
                one = rendered(name, Conversation(conversation.messages[: at + 1], upto.tools), by)
                # but for the token that ends it, which may be another where a question follows
                begins = one.whole.rpartition(text.rpartition("<")[0])[0]
                is_same = one.asked in (begins, begins + "<think>\n")
                yield "" if is_same else f"{name}, {shape}: {text!r} in {one.whole[-80:]!r}"
        whole = records.encode([conversation])[0].sequences[-1].input_ids
        # No token reaches over the border between what is given and what is trained: what is given
        # is tokenised alone at inference.
        apart = [tokenizer(text, add_special_tokens=False).input_ids for text, _ in sequences[-1]]
        if [*chain(*apart)] != whole:
            yield f"{name}, {shape}: other tokens"
        if not expected.thinks and len(sequences[-1]) == 2:
            asked = question_ids(tokenizer, conversation.messages[:-1], conversation.tools)
            if asked != apart[0]:
                yield f"{name}, {shape}: asked with {tokenizer.decode(asked)[-60:]!r}"


def compared(
    name: str, found: list[tuple[str, bool]], expected: Rendered, calls: bool
) -> Iterator[str]:
    text = "".join(text for text, _ in found)
    learnt = found[-1][0]
    if name in NO_END:
        text, learnt = text.removesuffix("</s>"), learnt.removesuffix("</s>")
    if not expected.whole.startswith(text):
        yield f"{text[-80:]!r} is not {expected.whole[-80:]!r}"
    elif (behind := expected.whole[len(text) :]) not in BEHIND:
        yield f"not trained: {behind!r}"
    elif expected.asked + learnt == text:
        yield ""
    elif name in OPENS_A_THOUGHT and expected.asked.endswith("<think>\n") and not expected.thinks:
        yield (
            "" if expected.asked.removesuffix("<think>\n") + learnt == text else "opened otherwise"
        )
    elif name in BEGINS_LATE and calls:
        yield "" if text.startswith(expected.asked) else "begins otherwise"
    else:
        yield f"asked with {expected.asked[-60:]!r}, trained {learnt[:60]!r}"


def unmarked(name: str) -> Iterator[str]:
    """One for each mark, empty where what is trained is what it marks, or differs as listed."""
    tokenizer = tokenizer_of(name)
    records = tokenizer_of_records(tokenizer)
    for shape, conversation in SHAPES.items():
        calls = any(m.tool_calls for m in conversation.messages)
        if (calls and name in NO_CALLS) or (name in CUTS_THOUGHTS and "thought" in shape):
            continue
        expected = rendered(name, conversation)
        (text,), (marks,) = render_jinja_template(
            [expected.turns],
            tools=json.loads(conversation.tools) if conversation.tools else None,
            chat_template=FIXED_DATE + template(name),
            return_assistant_tokens_mask=True,
            enable_thinking=expected.thinks,
            **tokenizer.special_tokens_map,
        )
        # An earlier answer whose thought is left out is trained in a sequence of its own.
        sequences = [stretches(spans) for spans in records.spans(conversation)]
        trained = trained_ranges(sequences[-1])
        marks = merged(marks) if name in MARKS_PARTS else marks
        for start, end in marks[len(sequences) - 1 :]:
            if text[start:end] in BEHIND:
                continue
            (mine,) = [one for one in trained if one[0] < end and one[1] > start] or [(0, 0)]
            front, behind = text[start : mine[0]], text[mine[1] : end]
            is_listed = front in GIVEN and behind in BEHIND and mine[0] >= start
            is_listed |= name in MARKS_PARTS and mine[0] <= start and behind in BEHIND
            yield (
                "" if is_listed else f"{name}, {shape}: {text[start:end]!r}, {text[slice(*mine)]!r}"
            )


def merged(marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in marks:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def trained_ranges(found: list[tuple[str, bool]]) -> list[tuple[int, int]]:
    ranges, at = [], 0
    for text, is_trained in found:
        if is_trained:
            ranges.append((at, at + len(text)))
        at += len(text)
    return ranges
