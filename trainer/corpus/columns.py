"""Which column of a record is what: by the names that the user gave, else by usual ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.corpus.examples import printable

MOST_CHOICE_COLUMNS = 6


def _names_of_choice(number: int) -> tuple[str, ...]:
    """Of the columns that hold the first choice (0) and so on, where each has one of its own."""
    letter = "abcdefghij"[number]
    names = (f"{word}{between}" for word in ("option", "choice") for between in ("", "_", " "))
    return (letter, *(f"{name}{mark}" for name in names for mark in (letter, number + 1)))


# Names are compared without case and what surrounds them. Those of published data sets come
# first, then short forms and other languages.
GUESSES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt",),
    "completion": ("completion",),
    "question": (
        *("question", "instruction", "query", "q", "prompt", "input"),
        *("frage", "frågan", "fråga", "vraag", "spørgsmål", "spørsmål", "kysymys", "spurning"),
        *("pregunta", "pergunta", "domanda", "întrebare", "demande", "pytanie", "otázka", "dotaz"),
        *("vprašanje", "pitanje", "kérdés", "soru", "küsimus", "klausimas", "jautājums", "ερώτηση"),
        *("вопрос", "питання", "въпрос", "سؤال", "سوال", "שאלה", "प्रश्न", "คำถาม", "câu hỏi"),
        *("pertanyaan", "问题", "問題", "提问", "質問", "问", "問", "질문"),
    ),
    "answer": (
        *("answer", "response", "output", "a", "answers", "correct_answer"),
        *("antwort", "svar", "antwoord", "vastaus", "réponse", "reponse", "respuesta", "resposta"),
        *("risposta", "răspuns", "odpowiedź", "odpověď", "odpoveď", "odgovor", "válasz", "cevap"),
        *("vastus", "atsakymas", "atbilde", "απάντηση", "ответ", "відповідь", "отговор"),
        *("إجابة", "جواب", "پاسخ", "תשובה", "उत्तर", "คำตอบ", "câu trả lời", "trả lời", "jawaban"),
        *("答案", "回答", "答え", "答", "답변", "대답", "답"),
    ),
    "context": ("input", "context"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools",),
    "user": ("user", "human"),
    "assistant": ("assistant", "bot", "gpt"),
    "turns": ("turns", "chat", "dialogue", "dialog"),
    "choices": ("choices", "options"),
    **{f"choice {n}": _names_of_choice(n) for n in range(MOST_CHOICE_COLUMNS)},
    "right choice": ("answerkey", "answer_key", "correct", "correct_option", "label"),
    "unanswerable": ("is_impossible",),
    "label": ("label",),
    "weight": ("weight",),
    "text": ("text", "content"),
}
CHOICE_ROLES = tuple(f"choice {n}" for n in range(MOST_CHOICE_COLUMNS))
_BESIDE_A_QUESTION = ("context", "system", "history", "weight", "unanswerable")
# A record is read as the first of these forms whose columns it has; those it need not have follow.
FORMS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("messages",): ("system", "tools", "label", "weight"),
    ("prompt", "completion"): ("system", "tools", "label", "weight"),
    ("question", "answer"): (*_BESIDE_A_QUESTION, "choices", *CHOICE_ROLES),
    ("question", "right choice", "choices"): _BESIDE_A_QUESTION,
    ("question", "right choice", *CHOICE_ROLES[:2]): (*_BESIDE_A_QUESTION, *CHOICE_ROLES[2:]),
    ("user", "assistant"): _BESIDE_A_QUESTION,
    ("text",): ("weight",),
    ("turns",): ("system", "tools", "weight"),
}
# Roles that are another one where a form is known by names of their own.
_SAME_AS = {
    "user": "question",
    "assistant": "answer",
    "right choice": "answer",
    "turns": "messages",
}
_KINDS = ("messages", "completion", "answer", "text")
_QUOTED_COLUMNS = 8
_PREFERENCES = (
    "is preference data, a chosen and a rejected answer, and nothing here trains on both; to train "
    "what was {}"
)


@dataclass(frozen=True)
class Columns:
    """Names that the user gave to columns; an empty one is guessed."""

    question: str = ""
    answer: str = ""
    text: str = ""

    def given(self, role: str) -> str:
        return folded(getattr(self, role, ""))

    def all_given(self) -> set[str]:
        """The roles whose columns the user named."""
        return {role for role in ("question", "answer", "text") if self.given(role)}

    def named(self, role: str) -> tuple[str, ...]:
        """Names that the column of `role` may have, the likeliest first."""
        given = self.given(role)
        return (given,) if given else GUESSES[role]

    def all_names(self) -> frozenset[str]:
        """That some column may have which means something."""
        return frozenset(name for role in GUESSES for name in self.named(role))

    def wanted(self, names: Iterable[str]) -> str:
        """What is missing where a record has the columns `names`, and how to say which they are."""
        question, answer, text = (self.named(role)[0] for role in ("question", "answer", "text"))
        return (
            f"needs {text}, prompt + completion, {question} + {answer} or messages; "
            f"it has {quoted([printable(name[:40]) for name in names])}; set "
            "QLORA_QUESTION_COLUMN and QLORA_ANSWER_COLUMN, or QLORA_TEXT_COLUMN, to its own names"
        )

    def preferred(self, record: Mapping[str, Any]) -> str:
        """Why a record with a chosen and a rejected answer is none, and what works; else ""."""
        values = {folded(name): value for name, value in record.items()}
        if {"preferred_output", "non_preferred_output"} <= values.keys():
            return _PREFERENCES.format(
                "preferred write the messages of input with preferred_output behind them as "
                "messages"
            )
        if not {"chosen", "rejected"} <= values.keys():
            return ""
        if isinstance(values["chosen"], list):
            is_answer = isinstance(values.get("prompt"), list)
            advice = f"rename chosen to {'completion' if is_answer else 'messages'}"
        elif _is_dialogue(values["chosen"]):
            advice = "write its turns, which begin with Human: and Assistant:, as messages"
        elif any(name in values for name in self.named("question")):
            advice = "set QLORA_ANSWER_COLUMN=chosen"
        else:
            advice = "set QLORA_TEXT_COLUMN=chosen"
        return _PREFERENCES.format(f"chosen {advice}")


def _is_dialogue(text: object) -> bool:
    """Whether it is one text with the turns of both sides, as Anthropic's HH-RLHF has them."""
    return isinstance(text, str) and "\n\nHuman:" in text and "\n\nAssistant:" in text


@dataclass(frozen=True)
class Layout:
    """One form that the columns of a record fit: the column of each role, as the record has it."""

    form: tuple[str, ...]
    names: Mapping[str, str]

    @cached_property
    def is_quiz(self) -> bool:
        """Whether it has a column that only sets of questions have: choices, or whether there is
        an answer."""
        return not self.names.keys().isdisjoint(("choices", "unanswerable", *CHOICE_ROLES))

    @cached_property
    def kind(self) -> str:
        """messages, completion, answer or text."""
        return next(role for role in _KINDS if role in self.form)

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(self.names[role] for role in self.form)


def layouts(names: Iterable[str], columns: Columns) -> list[Layout]:
    """The forms that columns of these `names` fit, the most telling first; where some have
    columns that the user named, only those."""
    by_name = {folded(name): name for name in reversed(list(names))}
    letters = {"a", "b"} <= by_name.keys()  # of choices, so that `a` is no answer
    found = []
    for form, optional in FORMS.items():
        if any(columns.given(_SAME_AS.get(role, "")) for role in form):
            continue  # the user named another column for it
        taken: dict[str, str] = {}
        for role in _given_first((*form, *optional), columns):
            known = (
                n for n in columns.named(role) if not (role == "answer" and letters and n == "a")
            )
            free = (by_name[n] for n in known if n in by_name)
            name = next((name for name in free if name not in taken.values()), None)
            if name is not None:
                taken[role] = name
        if all(role in taken for role in form):
            found.append(_layout(form, taken))
    return [layout for layout in found if _is_given(layout.form, columns)] or found


def _layout(form: tuple[str, ...], taken: dict[str, str]) -> Layout:
    roles = tuple(_SAME_AS.get(role, role) for role in form)
    return Layout(roles, {_SAME_AS.get(role, role): name for role, name in taken.items()})


def fits(names: Iterable[str], columns: Columns) -> bool:
    """Whether a record of these columns can be read."""
    return bool(layouts(names, columns))


def _given_first(roles: tuple[str, ...], columns: Columns) -> list[str]:
    return sorted(roles, key=lambda role: not columns.given(role))


def _is_given(form: tuple[str, ...], columns: Columns) -> bool:
    return any(columns.given(role) for role in form)


def quoted(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    names = list(names)
    more = len(names) - _QUOTED_COLUMNS
    shown = ", ".join(names[:_QUOTED_COLUMNS]) or "no columns"
    return shown + (f" and {more} more" if more > 0 else "")


def folded(name: str) -> str:
    """As names are compared."""
    return name.strip().strip("\ufeff\u200b?:*").strip().casefold()
