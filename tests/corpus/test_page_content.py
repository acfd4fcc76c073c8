"""What a page says is taken, and what surrounds it on every page of its site is not."""

import pytest

from trainer.corpus.html import html
from trainer.corpus.page_content import content

PROSE = "The library lends ladders to anyone who asks at the desk, and it does so without a fee. "


def words(body: str) -> str:
    return html(f"<body>{body}</body>")[0]


def test_navigation_scripts_and_forms_are_no_words_of_a_page() -> None:
    page = "<nav>Home</nav><script>x()</script><p>Words.</p><form>Name</form><aside>Ad</aside>"
    assert words(page + f"<p>{PROSE}</p><footer>All rights reserved</footer>").split() == (
        f"Words. {PROSE}".split()
    )


def test_all_articles_are_taken() -> None:
    posts = "".join(f"<article><p>{n} {PROSE}</p></article>" for n in range(3))
    found = words(f"<h1>Saw</h1><div>Menu of it</div>{posts}")
    assert [line[:2] for line in found.split("\n\n")] == ["# ", "0 ", "1 ", "2 "]
    assert "Menu" not in found


def test_the_body_is_taken_where_an_article_holds_little() -> None:
    found = words(f"<article>Buy!</article><div>{PROSE * 3}</div>")
    assert found.count("ladders") == 3


def test_short_blocks_and_lists_of_links_under_a_telling_name_go() -> None:
    links = "".join(f"<a href=/{n}>Another story {n}</a> " for n in range(9))
    found = words(
        f"<div class='cookieBanner'>We use cookies.</div><div>{PROSE * 9}</div>"
        f"<div id='related-posts'>{links}</div><ul>{links}</ul>"
    )
    assert found == (PROSE * 9).strip()


def test_a_name_alone_takes_no_part_of_the_page_with_it() -> None:
    for name in ("page left-navigation", "sidebar", "social"):
        assert PROSE.strip() in words(f"<div class='{name}'><p>{PROSE * 5}</p></div>")
    form = f"<form><input name=state><p>{PROSE * 2}</p><p>{PROSE * 2}</p></form>"
    assert PROSE.strip() in words(form)
    assert PROSE.strip() in words(f"<noscript><p>{PROSE * 5}</p></noscript>")


def test_the_share_that_was_taken_is_told() -> None:
    menu = "".join(f"<nav>{PROSE}{n}</nav>" for n in range(6))
    assert content(f"<body><p>{PROSE}</p></body>").taken == 1
    assert 0.1 < content(f"<body>{menu}<p>{PROSE}</p></body>").taken < 0.2


def test_a_heading_above_the_main_part_stays() -> None:
    assert words(f"<h1>Ladders</h1><main><p>{PROSE}</p></main>") == f"# Ladders\n\n{PROSE.strip()}"


@pytest.mark.parametrize(
    "attributes",
    ["hidden", "style='display: none'", "style='visibility:hidden'", "aria-hidden=true"],
)
def test_what_nobody_sees_is_no_word_of_a_page(attributes: str) -> None:
    for tag in ("p", "span", "div"):
        page = f"<p>{PROSE * 3}</p><{tag} {attributes}>Draft: ask the boss first.</{tag}> Open."
        found, left_out = html(f"<body>{page}</body>")
        assert "Draft" not in found
        assert found.endswith("Open.")
        assert [(n.words, n.amount) for n in left_out] == [
            ("what stands in hidden parts is not used", "5 words")
        ]


@pytest.mark.parametrize(
    "page",
    [
        "<h3>Fees</h3><div hidden>Two crowns.</div>",
        "<dl><dt>Fees</dt><dd style='display:none'>Two crowns.</dd></dl>",
        "<div>What does it cost?</div><div style='display:none'>Two crowns.</div>",
        "<a href='#more1'>Fees</a><p>Words</p><div id=more1 hidden>Two crowns.</div>",
        "<div class=tab-pane aria-hidden=true>Two crowns.</div>",
        "<p>Words</p><div role=tabpanel hidden>Two crowns.</div>",
        "<p>Words</p><p hidden=until-found>Two crowns.</p>",
    ],
)
def test_what_a_click_shows_is(page: str) -> None:
    assert "Two crowns." in words(f"<p>{PROSE * 3}</p>{page}")


def test_a_page_that_is_hidden_until_it_is_drawn_is_read() -> None:
    assert PROSE.strip() in words(f"<div style='visibility:hidden'><p>{PROSE}</p></div>")


def test_pages_of_one_document_are_read_though_all_but_the_first_are_hidden() -> None:
    pages = "".join(f"<section hidden><p>{n} {PROSE}</p></section>" for n in range(9))
    assert words(f"<section><p>{PROSE}</p></section>{pages}").count("ladders") == 10


def test_a_formula_is_said_once() -> None:
    half = "<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>"
    drawn = f"<span>{half}</span><span aria-hidden=true>1 over 2 drawn with signs</span>"
    unseen = f"<span style='display:none'>{half}</span>"
    for formula in (drawn, unseen):
        found, left_out = html(f"<p>{PROSE * 3} Take {formula} cup.</p>")
        assert found.endswith("Take 1/2 cup.")
        assert not left_out


def test_numbers_of_lines_and_marks_of_headings_are_no_words() -> None:
    mark = "<a class=headerlink href='#a'>¶</a>"
    code = "<pre><span class=linenos>1</span>a = 2\n<span class=lineno>2</span>b = 3</pre>"
    price = "<p><b class=anchor-price>20</b> crowns</p>"
    assert words(f"<h1>Reset{mark}</h1>{code}{price}") == (
        "# Reset\n\n```\na = 2\nb = 3\n```\n\n**20** crowns"
    )


def test_comments_of_google_docs_are_told_and_no_words() -> None:
    said = "<p>Two years<sup><a href='#cmnt1' id='cmnt_ref1'>[a]</a></sup></p>"
    comment = "<p><a href='#cmnt_ref1' id='cmnt1'>[a]</a><span>Ask the boss first.</span></p>"
    found, left_out = html(f"<p>{PROSE}</p>{said}<div>{comment}</div>")
    assert found.endswith("Two years")
    assert [(n.words, n.amount) for n in left_out] == [
        ("what stands in comments of Google Docs is not used", "4 words")
    ]
