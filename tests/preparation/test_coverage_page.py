"""The page of a preparation: what is kept, what is not, everything escaped."""

from trainer.dataset.passages import Passage
from trainer.preparation.coverage_page import render_page
from trainer.preparation.drafts import Draft
from trainer.preparation.kept import Kept, Unasked


def test_it_shows_what_was_kept_and_left_out_and_runs_nothing() -> None:
    kept = Kept("model <b>", unasked=Unasked([("| <u> | 3 |", "b.md")], ["short.txt"]))
    drafts = [Draft(0, "What is A?", "a <i>."), Draft(1, "Bad?", "b.", "no question")]
    kept.add(Passage("Text one.", "a.md", "A"), ["a <i>.", "b."], drafts)
    records = kept.records()
    text = render_page(kept.summary(len(records)), records)
    assert "1 questions" in text and "50 %" in text and "What is A?" in text
    assert "no question: 1" in text and "Bad?" in text
    assert "model &lt;b&gt;" in text and "a &lt;i&gt;." in text
    assert "| &lt;u&gt; | 3 |" in text and "Files without a passage: short.txt." in text
    assert "<script" not in text and "http" not in text
