"""A page is Markdown: its headings, lists, tables and code stay what they are."""

import pytest

from trainer.corpus.examples import Unusable
from trainer.corpus.html import html


def words(page: str) -> str:
    return html(page)[0]


@pytest.mark.parametrize(
    "page, markdown",
    [
        ("<h1>A</h1><p>b<br>c</p><h3>D</h3>", "# A\n\nb\nc\n\n### D"),
        ("<ul><li>one<ul><li>two</ul><li>three</ul>", "* one\n\n  * two\n* three"),
        ("<ol><li>one<li>two</ol>", "1. one\n2. two"),
        ("<p>a <b>bold </b>word, <em>this</em></p>", "a **bold** word, *this*"),
        ("<ol start=5><li>five<li value=9>nine</ol>", "5. five\n9. nine"),
        ("<ol reversed type=i><li>two<li>one</ol>", "ii. two\ni. one"),
        (
            "<p>Fee <s>9 </s>8, <u style='text-decoration:line-through'>no</u>",
            "Fee ~~9~~ 8, ~~no~~",
        ),
        ("<p>run <code>ls  -l</code></p><pre>a\n  b</pre>", "run `ls -l`\n\n```\na\n  b\n```"),
        ("<blockquote><p>a<p>b</blockquote>", "> a\n\n> b"),
        ("<dl><dt>Tea<dd>At four</dl>", "Tea\n\nAt four"),
        ("<p>10<sup>3</sup> m, H<sub>2</sub>O, 1<sup>st</sup></p>", "10³ m, H₂O, 1st"),
        ("<p><ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby></p>", "漢字(かんじ)"),
        ("<p>Kran\u00adken\u00adhaus</p>", "Krankenhaus"),
        ("<p><math alttext='x^2'><mi>x</mi></math> is a square</p>", "x^2 is a square"),
        ("<p>Add 1<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math> cups</p>", "Add 1 1/2 cups"),
        (
            "<table><tr><th>a|b<th>c<tr><td>d<td>e | f</table>",
            r"| a\|b | c |" + "\n| --- | --- |\n" + r"| d | e \| f |",
        ),
        ("<main><p>Words.<aside>A remark.</aside></main>", "Words.\n\nA remark."),
    ],
)
def test_elements_are_what_they_are(page: str, markdown: str) -> None:
    assert words(page) == markdown


def test_a_table_of_data_has_a_line_for_each_row() -> None:
    table = "<table><caption>Fees<tr><th>Thing<th>Fee<tr><td>Drill<td>two<br>crowns</table>"
    assert words(table) == "Fees\n\n| Thing | Fee |\n| --- | --- |\n| Drill | two crowns |"


def test_a_cell_that_spans_others_leaves_each_cell_in_its_column() -> None:
    table = (
        "<table><tr><th rowspan=2>Day<th colspan=2>Open<th>Note<tr><th>from<th>to<th>"
        "<tr><td>Mo<td>8<td>9<td>late</table>"
    )
    assert words(table).splitlines() == [
        *("| Day | Open |  | Note |", "| --- | --- | --- | --- |"),
        *("|  | from | to |  |", "| Mo | 8 | 9 | late |"),
    ]


def test_a_table_that_arranges_a_page_is_what_it_holds() -> None:
    table = "<table><tr><td><h2>Fees</h2><p>Two crowns.</p></td><td><p>Pay here.</td></tr></table>"
    assert words(table) == "## Fees\n\nTwo crowns.\n\nPay here."


@pytest.mark.parametrize(
    "question",
    [
        "<h2><button aria-expanded=false>Who may borrow?</button></h2>",
        "<details open><summary>Who may borrow?</summary></details>",
        "<button class=accordion-button>Who may borrow?</button>",
        "<div role=button aria-controls=p1>Who may borrow?</div>",
        "<button>Who may borrow?</button>",
    ],
)
def test_the_question_of_an_answer_that_is_folded_away_is_a_heading(question: str) -> None:
    page = f"<h1>FAQ</h1><div>{question}<div style='display:none'>Anyone.</div></div>"
    assert words(page) == "# FAQ\n\n## Who may borrow?\n\nAnyone."


def test_a_button_is_words_in_a_sentence_and_nothing_alone() -> None:
    page = (
        "<p>Press <button>Reset</button>, then <button>OK</button>.</p>"
        "<button>Share</button><div><button>Need some help?</button></div>"
    )
    assert words(page) == "Press Reset, then OK."


def test_the_title_of_the_page_is_its_heading_where_it_has_none() -> None:
    assert words("<title>The  Plover</title><p>Words") == "# The Plover\n\nWords"
    assert words("<title>T</title><h1>Head</h1><p>Words") == "# Head\n\nWords"


@pytest.mark.parametrize("said", ["404 Not Found", "Just a moment...", "Please enable JavaScript"])
def test_a_page_that_stands_for_another_is_refused(said: str) -> None:
    with pytest.raises(Unusable, match="a placeholder page"):
        html(f"<p>{said}</p>")


@pytest.mark.parametrize("page", ["", "<nav>Home</nav>", "<script>x()</script>", "<!-- a -->"])
def test_a_page_without_words_is_refused(page: str) -> None:
    with pytest.raises(Unusable, match="no text beside"):
        html(page)


def test_a_page_that_is_nested_too_deep_is_refused_and_not_cut() -> None:
    assert "deep" in words("<div>" * 300 + "deep")
    for depth in (500, 5000, 50_000):
        with pytest.raises(Unusable, match="nested too deep"):
            html("<div>" * depth + "deep")


def test_small_parts_that_are_left_out_are_told_with_their_words() -> None:
    prose = "The saw has to come back by Friday. " * 30
    page = (
        f"<main><p>{prose}</p></main><p>Closed on the tenth of May.</p>"
        "<aside>Bring <a href=/card>the card</a> with you.</aside>"
        "<form>Two crowns for each day.</form>"
        "<nav>Home</nav><footer>Open Monday to Friday, nine to five.</footer>"
    )
    assert [(notice.words, notice.amount) for notice in html(page)[1]] == [
        ("what stands in <form> is not used", "5 words"),
        ("what stands in <footer> is not used", "7 words"),
        ("what stands beside its main part is not used", "6 words"),
    ]
