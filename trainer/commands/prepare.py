"""`prepare`: documents become question/answer records, worded by the base model itself.

Each passage is shown to the model, which writes questions and answers in its own words; only those
are kept whose answer stands in the passage as it is. What the model wrote is kept in the scratch
folder, one line a passage, so that a later start asks about new passages only.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from trainer.dataset.inputs import fetch_inputs, reader_of
from trainer.dataset.passages import LEAST_PASSAGE_CHARS, Passage, passages
from trainer.dataset.unanswerable import Vocabulary, refusals
from trainer.errors import DataError, NothingKeptError
from trainer.inference.generate import Answerer
from trainer.inference.reply import Reply
from trainer.models import base_model, load
from trainer.models.locate import locate_base
from trainer.monitoring.counting import Add, counting
from trainer.runtime.device import choose_precision, find_device
from trainer.runtime.json_records import parse_json, well_formed
from trainer.runtime.log import figures
from trainer.runtime.naming import digest
from trainer.settings import Settings
from trainer.storage import open_store
from trainer.storage.files import only_process
from trainer.tokenization.chat_template import ensure_chat_template

log = logging.getLogger(__name__)

OUTPUT = "questions.jsonl"
PAIRS = 3  # asked for of one passage
_LONGEST_ANSWER_CHARS = 300
_REPLY_TOKENS = 64 * PAIRS
_AT_ONCE = 16  # passages; what they gave is on disk before the next are asked about
_REQUEST = """\
Write {pairs} questions that the passage below answers. Answer each of them with words copied from \
the passage. Write nothing else, in this form:

Q: Who answers letters?
A: the front office

Passage{section}:

{passage}"""

# `Q: …` and `A: …`, also numbered, in bold or spelt out.
_LINE = re.compile(r"[\W\d]*(q|a|question|answer)\s*\d*\W{0,2}[:.]\s*(\S.*)", re.IGNORECASE)

Ask = Callable[[list[str]], list[Reply]]


def request(passage: Passage) -> str:
    """What the model is asked about a passage."""
    of = f" (from {passage.section})" if passage.section else ""
    return _REQUEST.format(pairs=PAIRS, section=of, passage=passage.text)


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str


def prepare_questions(settings: Settings) -> int:
    """Publish OUTPUT to OUTPUT_URI; the number of its records. Raises DataError for none."""
    output = open_store(settings.output_uri, retry_minutes=settings.storage_retry_minutes)
    output.probe()
    base = locate_base(settings)
    files = fetch_inputs(settings).data
    names = [file.name for file in files]
    total = sum(1 for _ in passages(reader_of(settings, files), names))
    log.info("%d passages to ask about", total, extra=figures(passages=total))
    reader = reader_of(settings, files)
    by = f"{base.name}@{base.revision}" if base.revision else base.name
    folder = settings.scratch_dir / "questions" / digest(_REQUEST + by)
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder):
        cache = ReplyCache(folder / "replies.jsonl", lambda: _asker(base, settings))
        kept = KeptRecords(by)
        asked = passages(reader, names)
        with counting("asking about passages", total) as add:
            while batch := list(islice(asked, _AT_ONCE)):
                kept.add(batch, cache.replies(batch, add))
        reader.tally.check(settings.max_skipped_share)
        for reason in reader.tally.skipped:
            log.warning("skipped %s", reason)
        kept.check()
        unanswered = refusals(kept.records, kept.told, settings)
        log.info("%d questions that the documents do not answer", len(unanswered))
        published = [*kept.records, *unanswered]
        records = folder / OUTPUT
        records.write_text(
            "".join(json.dumps(record) + "\n" for record in published), encoding="utf-8"
        )
        output.upload(records, OUTPUT)
    counts = {reason.replace(" ", "_"): number for reason, number in kept.counts.items()}
    log.info("published %s/%s", output.uri.rstrip("/"), OUTPUT, extra=figures(**counts))
    return len(published)


def _asker(base: base_model.Base, settings: Settings) -> Ask:
    """The base model, loaded."""
    device = find_device()
    precision = choose_precision(settings.precision, device)
    tokenizer = base.tokenizer()
    ensure_chat_template(tokenizer)
    loaded = load.load_base(base, settings, precision, device).eval()
    answerer = Answerer(loaded, tokenizer, engine=settings.engine != "stock")
    return lambda requests: answerer.replies(requests, _REPLY_TOKENS)


# -- what the model wrote -----------------------------------------------------------------


class ReplyCache:
    """Replies on disk, a line each; `load` gives the model, which is needed for new ones only."""

    def __init__(self, path: Path, load: Callable[[], Ask]) -> None:
        self._path, self._load = path, load
        self._ask: Ask | None = None
        self._known: dict[str, Reply] = {}
        whole = b"".join(path.read_bytes().rpartition(b"\n")[:2]) if path.exists() else b""
        for line in whole.splitlines():
            with suppress(ValueError), well_formed("a line"):  # a broken one is asked about again
                key, text, stopped = parse_json(line)
                if isinstance(key, str) and isinstance(text, str):
                    self._known[key] = Reply(text, stopped is True)
        path.write_bytes(whole)  # without a line that a kill cut off
        if self._known:
            log.info("%d passages were asked about by an earlier start", len(self._known))

    def replies(self, batch: Sequence[Passage], add: Add = lambda _: None) -> list[Reply]:
        """Of each passage, in order; `add` counts those that an earlier start asked about."""
        new = [passage for passage in batch if passage.key not in self._known]
        add(len(batch) - len(new))
        if new:
            self._ask = self._ask or self._load()
            self._keep(new, self._ask([request(passage) for passage in new]))
        return [self._known[passage.key] for passage in batch]

    def _keep(self, new: list[Passage], replies: list[Reply]) -> None:
        with self._path.open("ab") as file:
            for passage, reply in zip(new, replies, strict=True):
                self._known[passage.key] = reply
                line = json.dumps([passage.key, reply.text, reply.stopped])
                file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


# -- what of it is kept -------------------------------------------------------------------


class KeptRecords:
    """The records so far, and why the other pairs were left out."""

    def __init__(self, by: str) -> None:
        self._by = by
        self._asked: set[str] = set()
        self.told = Vocabulary()
        self.records: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()

    def add(self, batch: Iterable[Passage], replies: list[Reply]) -> None:
        for passage, reply in zip(batch, replies, strict=True):
            self.counts["passages"] += 1
            self.told.add(f"{passage.section} {passage.text}")
            pairs = pairs_of(reply)
            self.counts["passages without a pair"] += not pairs
            for pair in pairs:
                self._take(pair, passage)

    def _take(self, pair: Pair, passage: Passage) -> None:
        reason = why_unusable(pair, passage.text)
        if reason is None and pair.question.casefold() in self._asked:
            reason = "asked before"
        if reason is not None:
            self.counts[reason] += 1
            return
        self._asked.add(pair.question.casefold())
        self.counts["records"] += 1
        self.records.append(
            {
                "question": pair.question,
                "answer": pair.answer,
                "source": passage.source,
                "section": passage.section,
                "passage": passage.key,
                "made_by": self._by,
            }
        )

    def check(self) -> None:
        """Say what came of it; raises DataError, as NothingKeptError where nothing was kept."""
        passages = self.counts["passages"]
        if not passages:
            raise DataError(
                f"the data holds no document of {LEAST_PASSAGE_CHARS} characters or more to ask "
                "about; `prepare` needs documents, records can be trained as they are"
            )
        rest = {r: n for r, n in self.counts.items() if n and r not in ("passages", "records")}
        why = ", ".join(f"{reason}: {number}" for reason, number in rest.items())
        if not self.records:
            raise NothingKeptError(
                f"{self._by} gave no usable question and answer for {passages} passages ({why}); "
                "set QLORA_BASE_MODEL to a model that follows instructions"
            )
        log.info(
            "%d questions and answers from %d passages; left out: %s",
            len(self.records),
            passages,
            why or "nothing",
        )


def pairs_of(reply: Reply) -> list[Pair]:
    """Each question that an answer follows at once, one line each. The last answer of a reply
    that was cut off is left out."""
    lines = [line.strip() for line in reply.text.splitlines() if line.strip()]
    marked = [_LINE.fullmatch(line) for line in lines]
    found = []
    for number, (one, other) in enumerate(pairwise(marked), start=2):
        is_pair = one and other and (one[1][0] + other[1][0]).upper() == "QA"
        if one and other and is_pair and (reply.stopped or number < len(lines)):
            found.append(Pair(_unquoted(one[2]), _unquoted(other[2])))
    return found


def _unquoted(text: str) -> str:
    text = text.strip().strip("*").strip()
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("\u201c", "\u201d")):
        return text[1:-1].strip()
    return text


def why_unusable(pair: Pair, passage: str) -> str | None:
    """Why a pair cannot be trained on; None for a sound one."""
    if len(pair.question.split()) < 3 or not pair.question.endswith(("?", "\uff1f")):
        return "no question"
    if not any(map(str.isalnum, pair.answer)):
        return "no answer"
    if len(pair.answer) > _LONGEST_ANSWER_CHARS:
        return "answer too long"
    if not _occurs(pair.answer, passage):
        return "answer not in the passage"
    if _occurs(pair.answer, pair.question):
        return "answer in the question"
    return None


def _occurs(words: str, text: str) -> bool:
    """Whether `words` stand in `text`, case, white space and a last full stop aside."""
    words, text = (" ".join(t.casefold().split()) for t in (words.strip().rstrip("."), text))
    return re.search(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])", text) is not None
