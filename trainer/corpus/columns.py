"""Which column of a record is what: by the names that the user gave, else by usual ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.corpus.examples import printable

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
        *("answer", "response", "output", "a", "answers"),
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
    "label": ("label",),
    "weight": ("weight",),
    "text": ("text", "content"),
}
# A record is read as the first of these forms whose columns it has; those it need not have follow.
FORMS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("messages",): ("system", "tools", "weight"),
    ("prompt", "completion"): ("system", "tools", "label", "weight"),
    ("question", "answer"): ("context", "system", "history", "weight"),
    ("text",): ("weight",),
}
_QUOTED_COLUMNS = 8


@dataclass(frozen=True)
class Columns:
    """Names that the user gave to columns; an empty one is guessed."""

    question: str = ""
    answer: str = ""
    text: str = ""

    def given(self, role: str) -> str:
        return _folded(getattr(self, role, ""))

    def all_given(self) -> set[str]:
        """The roles whose columns the user named."""
        return {role for role in ("question", "answer", "text") if self.given(role)}

    def named(self, role: str) -> tuple[str, ...]:
        """Names that the column of `role` may have, the likeliest first."""
        given = self.given(role)
        return (given,) if given else GUESSES[role]

    def wanted(self, names: Iterable[str]) -> str:
        """What is missing where a record has the columns `names`, and how to say which they are."""
        question, answer, text = (self.named(role)[0] for role in ("question", "answer", "text"))
        return (
            f"needs {text}, prompt + completion, {question} + {answer} or messages; "
            f"it has {_quoted([printable(name[:40]) for name in names])}; set "
            "QLORA_QUESTION_COLUMN and QLORA_ANSWER_COLUMN, or QLORA_TEXT_COLUMN, to its own names"
        )

    def preferred(self, record: Mapping[str, Any]) -> str:
        """Why a record with a chosen and a rejected answer is none, and what works; else ""."""
        values = {_folded(name): value for name, value in record.items()}
        if not {"chosen", "rejected"} <= values.keys():
            return ""
        if isinstance(values["chosen"], list):
            is_answer = isinstance(values.get("prompt"), list)
            advice = f"rename chosen to {'completion' if is_answer else 'messages'}"
        elif any(name in values for name in self.named("question")):
            advice = "set QLORA_ANSWER_COLUMN=chosen"
        else:
            advice = "set QLORA_TEXT_COLUMN=chosen"
        return (
            "is preference data, a chosen and a rejected answer, and nothing here trains on both; "
            f"to train what was chosen {advice}"
        )


@dataclass(frozen=True)
class Layout:
    """One form that the columns of a record fit: the column of each role, as the record has it."""

    form: tuple[str, ...]
    names: Mapping[str, str]

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(self.names[role] for role in self.form)


def layouts(names: Iterable[str], columns: Columns) -> list[Layout]:
    """The forms that columns of these `names` fit, the most telling first; where some have
    columns that the user named, only those."""
    by_name = {_folded(name): name for name in reversed(list(names))}
    found = []
    for form, optional in FORMS.items():
        taken: dict[str, str] = {}
        for role in _given_first((*form, *optional), columns):
            free = (by_name[n] for n in columns.named(role) if n in by_name)
            name = next((name for name in free if name not in taken.values()), None)
            if name is not None:
                taken[role] = name
        if all(role in taken for role in form):
            found.append(Layout(form, taken))
    return [layout for layout in found if _is_given(layout.form, columns)] or found


def fits(names: Iterable[str], columns: Columns) -> bool:
    """Whether a record of these columns can be read."""
    return bool(layouts(names, columns))


def _given_first(roles: tuple[str, ...], columns: Columns) -> list[str]:
    return sorted(roles, key=lambda role: not columns.given(role))


def _is_given(form: tuple[str, ...], columns: Columns) -> bool:
    return any(columns.given(role) for role in form)


def _quoted(names: list[str]) -> str:
    more = len(names) - _QUOTED_COLUMNS
    shown = ", ".join(names[:_QUOTED_COLUMNS]) or "no columns"
    return shown + (f" and {more} more" if more > 0 else "")


def _folded(name: str) -> str:
    return name.strip().strip("?:*").strip().casefold()
