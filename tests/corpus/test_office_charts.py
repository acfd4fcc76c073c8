"""A chart is its title and a table of what was saved of it."""

from lxml import etree

from trainer.corpus.office_charts import chart


def points(*values: str) -> str:
    return "".join(f'<pt idx="{at}"><v>{v}</v></pt>' for at, v in enumerate(values) if v)


def series(name: str, values: str) -> str:
    return f"<ser><tx>{points(name)}</tx><cat>{points('P1', 'P2')}</cat><val>{values}</val></ser>"


def read(inner: str) -> str:
    return chart(etree.fromstring(f"<chartSpace><chart>{inner}</chart></chartSpace>"))


def test_each_series_is_a_column() -> None:
    shown = read(
        "<title><tx><t>Pressure</t><t> in bar</t></tx></title><plotArea>"
        + series("cold", points("40.0", "0.30000000000000004"))
        + series("hot", points("", "-5"))
        + "</plotArea>"
    )
    assert shown == "Pressure in bar\n\n | cold | hot\nP1 | 40\nP2 | 0.3 | -5"


def test_a_chart_of_thousands_of_points_is_its_title() -> None:
    assert read("<title><t>Noise</t></title>" + series("", points(*"1" * 5000))) == "Noise"


def test_an_empty_chart_says_nothing() -> None:
    assert read("") == ""
