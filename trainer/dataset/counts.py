"""How the data of a run was counted: for the log, for run.json, and for the checks."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.corpus.dedup import Copy
from trainer.corpus.examples import printable
from trainer.corpus.reader import Tally
from trainer.dataset.answer_match import misplaced_answer, wordings
from trainer.dataset.contradictions import contradictions, contradictions_sentence
from trainer.dataset.eval_questions import Question
from trainer.dataset.holdout import HeldOutBy
from trainer.dataset.selection import TEXT, Selection
from trainer.dataset.told_by_documents import told_sentence
from trainer.errors import DataError
from trainer.runtime.log import figures, one_line
from trainer.runtime.wording import counted
from trainer.tokenization.token_cache import KINDS

log = logging.getLogger(__name__)

NAMED_DOCUMENTS = 3
WHOLE_BLOCKS = 64  # an advised length is a multiple of it
SEVERAL = 0.1  # of the questions follow others: it was taught to follow a conversation
MOST = 0.9  # of the cut records: a few that are much longer have a length of their own


def count(train: Selection) -> dict[str, Any]:
    """What was read, and what of it is trained; JSON-ready."""
    rows, corpus, tally = train.rows, train.corpus, train.corpus.cache.tally
    is_record = rows["kind"] != TEXT
    cut = rows["whole"][rows["whole"] > 0]
    return {
        "files": tally.files,
        **{KINDS[kind].__name__.lower(): corpus.kinds[kind] for kind in sorted(corpus.kinds)},
        "by_file_type": corpus.by_file_type,
        "duplicates": int((corpus.copies == Copy.EXACT).sum()),
        "near_duplicates": int((corpus.copies == Copy.NEAR).sum()),
        "skipped": tally.unusable + tally.foreign,
        "skipped_first": tally.skipped,
        "assumed_first": list(tally.notices),
        "records": int(is_record.sum()),
        "documents": int((~is_record).sum()),
        "turns": int(rows["turns"].sum(dtype=np.int64)),
        "sequences": int(rows["sequences"].sum()),
        "tokens": int(rows["tokens"].sum(dtype=np.int64)),
        "trained_tokens": int(rows["trained"].sum(dtype=np.int64)),
        "trained_ends": int(rows["ends"].sum(dtype=np.int64)),
        "framed_otherwise": int(rows["framed"].sum()),
        "system_turns": int(rows["system"].sum()),
        "thoughts": int(rows["thought"].sum()),
        "truncated": int(rows["truncated"].sum()),
        "fully_masked": int((is_record & (rows["sequences"] == 0)).sum()),
        "length_for_most": _round_up(np.quantile(cut, MOST, method="higher")) if len(cut) else 0,
        "length_for_all": _round_up(cut.max()) if len(cut) else 0,
        **contradictions(train),
    }


def count_held_out(held_out: Selection, by: HeldOutBy) -> dict[str, Any]:
    """What is held out, what that measures, and which documents are among it; JSON-ready."""
    is_document = held_out.rows["kind"] == TEXT
    sources = np.unique(held_out.rows["source"][is_document])
    return {
        "held_out": len(held_out),
        "held_out_by": str(by),
        "held_out_documents": int(is_document.sum()),
        "held_out_first": [held_out.corpus.files[n].name for n in sources[:NAMED_DOCUMENTS]],
    }


def noticed_of_evaluation(tally: Tally) -> list[str]:
    """What was skipped and assumed of the evaluation data, which is told among what was noticed."""
    skipped = (f"skipped {reason}" for reason in tally.skipped)
    return [f"evaluation data: {words}" for words in (*skipped, *tally.notices)]


def held_out_in_words(
    by: str, held_out: int, documents: int, first: Sequence[str], records: int
) -> str:
    """What was held out of the data, and so what is measured; of `records` that are trained."""
    records_held = held_out - documents
    records_too = {
        HeldOutBy.WORDINGS: f"{counted(records_held, 'question')} about facts that are trained in "
        "other words",
        HeldOutBy.FACTS: f"{counted(records_held, 'record')} whole, with their questions and "
        "answers, which are not trained",
        HeldOutBy.NOTHING: "nothing: the only record is trained, and asked at the end"
        if records == 1
        else f"nothing: all {records:,} records are trained, and some of them asked at the end",
    }
    if by == HeldOutBy.EVALUATION_DATA:
        return "the evaluation data, " + counted(
            held_out, "record or document", "records and documents"
        )
    if by == HeldOutBy.END:
        return "the end of the only document, about its last tenth"
    if by == HeldOutBy.NOTHING and not records:
        return "nothing"
    more = ", …" if documents > len(first) else ""
    named = f"{counted(documents, 'document')} whole ({', '.join(map(printable, first))}{more})"
    said = [records_too[HeldOutBy(by)]] if by != HeldOutBy.DOCUMENTS else []
    return "; ".join([*said, *([named] if documents else [])])


def match(trained: Sequence[Question]) -> dict[str, Any]:
    """What some trained questions say of all of them; JSON-ready."""
    found = misplaced_answer(trained)
    following = sum(any(turn.role == "user" for turn in one.earlier) for one in trained)
    return {
        "several_turns": 0 < following >= SEVERAL * len(trained),
        "wordings": wordings(trained),
        "misplaced_answer": [] if found is None else [found.question, found.answer],
    }


def misplaced_sentence(question: str, answer: str) -> str:
    """That answers stand in wrong rows, with the example that shows it best."""
    return (
        "answers do not belong to their questions, as in a table of which one column was sorted: "
        f"{one_line(question, 80, '…')!r} has the answer {one_line(answer, 80, '…')!r}"
    )


def _round_up(tokens: float) -> int:
    return -(-int(tokens) // WHOLE_BLOCKS) * WHOLE_BLOCKS


def cut_sentence(
    cut: int, records: int, max_length: int, length_for_most: int, length_for_all: int
) -> str:
    """How many records QLORA_MAX_LENGTH cuts, and the lengths that would hold them."""
    if 2 * length_for_most <= length_for_all:
        enough = f"{length_for_most:,} would hold {MOST:.0%} of them, {length_for_all:,} all"
    else:
        enough = f"{length_for_all:,} would hold all of them"
    longer, lose = ("is longer", "loses its end") if cut == 1 else ("are longer", "lose their end")
    return (
        f"{cut:,} of {counted(records, 'record')} ({cut / records:.0%}) {longer} than "
        f"QLORA_MAX_LENGTH={max_length} and {lose}: {enough}"
    )


def check_masked(train: Selection, max_length: int, max_share: float) -> None:
    """Raise DataError if more than `max_share` of the records have no trained token left."""
    rows = train.rows
    is_record = rows["kind"] != TEXT
    masked, records = rows[is_record & (rows["sequences"] == 0)], int(is_record.sum())
    if len(masked) > max_share * records:
        raise DataError(
            f"{len(masked)} of {counted(records, 'record has', 'records have')} no trained token "
            f"within QLORA_MAX_LENGTH={max_length} (the limit is {max_share:.0%}): "
            f"their prompts alone fill it, the longest with {masked['prompt'].max()} tokens; raise "
            "it, or shorten the prompts"
        )


def cautions(counts: Mapping[str, Any], max_length: int) -> list[str]:
    """What of the data is trained otherwise than whoever made it may expect, a sentence each."""
    said = []
    if cut := counts["truncated"] + counts["fully_masked"]:
        fitting = counts["length_for_most"], counts["length_for_all"]
        said.append(cut_sentence(cut, counts["records"], max_length, *fitting))
    if counts["misplaced_answer"]:
        said.append(misplaced_sentence(*counts["misplaced_answer"]))
    if contradicted := counts.get("contradicted", 0):
        said.append(contradictions_sentence(contradicted, counts["contradicted_first"]))
    if counts.get("told_by_documents", 0):
        said.append(told_sentence(counts))
    if framed := counts["framed_otherwise"]:
        said.append(
            f"{counted(framed, 'record holds', 'records hold')} the frame of a chat template that "
            "is not the base's, or only part of one, or one inside of a turn; it is trained as "
            "plain text: give the words of each turn alone, as messages or as question and answer, "
            "and the base's own template frames them"
        )
    return said


def log_counts(tally: Tally, counts: dict[str, Any], max_length: int) -> None:
    """Say what was left out and what is there; `counts` also has blocks and held_out."""
    for reason in tally.skipped:
        log.warning("skipped %s", reason)
    for notice in counts["assumed_first"]:
        log.warning("%s", notice)
    for caution in cautions(counts, max_length):
        log.warning("%s", caution)
    if counts["duplicates"] or counts["near_duplicates"]:
        log.info(
            "left out %d copies and %d near copies",
            counts["duplicates"],
            counts["near_duplicates"],
        )
    names = [kind.__name__.lower() for kind in KINDS]
    kinds = {name: counts[name] for name in names if name in counts}
    log.info(
        "data: %s from %s; %s tokens, %s of them trained, in %s; held out: %s",
        ", ".join(counted(number, kind) for kind, number in kinds.items()),
        counted(counts["files"], "file"),
        f"{counts['tokens']:,}",
        f"{counts['trained_tokens']:,}",
        counted(counts["blocks"], "block"),
        held_out_in_words(
            counts["held_out_by"],
            counts["held_out"],
            counts["held_out_documents"],
            counts["held_out_first"],
            counts["records"],
        ),
        extra=figures(**counts),
    )
    if set(kinds) == {"text"}:
        log.info(
            "the data is prose only: it teaches style and vocabulary; question/answer records "
            "teach answering, and `entrypoint.py prepare` makes some of documents"
        )
