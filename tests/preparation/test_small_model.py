"""A model that continues text drafts questions, each with a verdict, whatever it knows."""

import pytest
from support.loaded import built_in_model

from trainer.dataset.passages import Passage
from trainer.preparation.small_model import SmallModel
from trainer.preparation.statements import statements_of

PASSAGES = [
    Passage(
        "The HG-2 dries. Its price is 540 euros. Repairs are done by Kim, who likes them.",
        "a.md",
        "HG-2",
    ),
    Passage("Nothing to say", "b.md", ""),
    Passage("If the sun is out, the gate opens again. In May it is shut.", "c.md", ""),
]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return SmallModel(*built_in_model(tmp_path_factory.mktemp("model")))


def test_each_draft_belongs_to_a_statement_and_bears_its_words(writer: SmallModel) -> None:
    found = writer.drafts(PASSAGES)
    assert len(found) == 3 and not found[1]
    for passage, drafts in zip(PASSAGES, found, strict=True):
        told = statements_of(passage)
        asked_about = {draft.statement for draft in drafts}
        assert asked_about == (set(range(len(told))) if passage.section else {0} if told else set())
        assert all(draft.answer == told[draft.statement].text for draft in drafts)
        assert all(draft.question.endswith("?") for draft in drafts)
    assert {draft.guessed for draft in found[0]} == {True, False}
    assert not any(draft.guessed for draft in found[2])  # about nothing that has a name
    asked = {draft.question for draft in found[0]}
    assert {"How much does the HG-2 cost?", "Who does the repairs of the HG-2?"} <= asked


def test_passages_together_are_drafted_as_alone(writer: SmallModel) -> None:
    together = writer.drafts(PASSAGES)
    assert [sorted(map(str, d)) for d in together] == [
        sorted(map(str, writer.drafts([passage])[0])) for passage in PASSAGES
    ]


def test_what_it_generated_is_reported(
    writer: SmallModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    writer.drafts(PASSAGES[:1])
    writer.report()
    assert "tokens generated in" in caplog.text and " 0 tokens" not in caplog.text
