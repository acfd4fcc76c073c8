"""What the docs say that `plan` says of models on a T4 is what it says."""

from scripts import plan_table


def test_the_table_has_every_model_and_what_is_planned_for_it() -> None:
    page = plan_table.PAGE.read_text(encoding="utf-8")
    rows = page.partition(plan_table.BEGIN)[2].partition(plan_table.END)[0].splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in plan_table.MODELS]
    for name in ("SmolLM3 3B", "Qwen 3 30B-A3B"):
        assert f"| {name} | {' | '.join(plan_table.planned(name))} |" in rows
