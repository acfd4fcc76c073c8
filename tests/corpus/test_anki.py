"""Cards that Anki exports as text are questions with their answers."""

from pathlib import Path

from support.corpora import read_named

from trainer.corpus.examples import Conversation, Message


def card(front: str, back: str) -> Conversation:
    return Conversation((Message("user", front), Message("assistant", back)))


def test_the_front_of_a_card_asks_and_its_back_answers(tmp_path: Path) -> None:
    notes = (
        b"#separator:tab\n#html:true\n#notetype column:1\n#tags column:4\n"
        b"Basic\tWhat is <b>H2O</b>?\tWater<br>it &amp; ice\tchem\n"
        b'Basic\t"Two ""words""?"\t"a\nb"\t\n'
    )
    corpus = read_named(tmp_path, a_txt=notes)
    assert corpus.examples == [
        card("What is H2O?", "Water\nit & ice"),
        card('Two "words"?', "a\nb"),
    ]
    assert corpus.notices == []


def test_odd_words_of_its_first_lines_are_told_or_passed_over(tmp_path: Path) -> None:
    odd = b"#separator:tab\n#deck column:" + b"9" * 5000 + b"\n#tags column:0\n#\na?\tb\n"
    nothing = b"#separator:tab\n#html:true\n"
    quotes = b'#separator:"\na?"b\n'
    corpus = read_named(tmp_path, a_txt=odd, b_txt=nothing, c_txt=quotes)
    assert corpus.examples == [card("a?", "b")]
    assert corpus.skipped == [
        "b.txt: it holds no records",
        "c.txt: its fields stand between quotes alone; export it with tabs",
    ]


def test_further_fields_and_cards_with_gaps_are_told(tmp_path: Path) -> None:
    notes = b"#separator:Semicolon\n#html:false\na < b?;yes;see 3\n{{c1::Rome}} is old;;\n"
    corpus = read_named(tmp_path, a_txt=notes)
    assert corpus.examples == [card("a < b?", "yes")]
    assert corpus.notices == ["a.txt: not used: column field 3"]
    assert corpus.skipped == [
        "a.txt line 4: is a card with a gap; write it as a question with its answer"
    ]


def test_cards_of_another_name_are_told_theirs(tmp_path: Path) -> None:
    corpus = read_named(tmp_path, a_csv=b"#separator:Comma\na,b\n", b_txt=b"words")
    assert corpus.skipped == ["a.csv: it is cards of Anki; name it .txt"]
