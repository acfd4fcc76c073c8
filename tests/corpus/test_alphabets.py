# ruff: noqa: RUF001 - letters of many alphabets
"""The code page of a few sentences is that in which they are words of one language."""

import pytest

from trainer.corpus.alphabets import code_page
from trainer.corpus.decoding import RawFile, encoding_of

SENTENCES = [
    ("cp1252", "Les élèves français étudient à la bibliothèque."),
    ("cp1252", "Die Bücherei ist von acht bis sechs Uhr geöffnet."),
    ("cp1252", "El niño no sabe dónde está la biblioteca mañana."),
    ("cp1252", "La città è più bella d'inverno, però è fredda."),
    ("cp1252", "Biblioteket er åbent fra otte til seks, også på lørdage."),
    ("cp1252", "Bókasafnið er opið frá átta til sex á virkum dögum."),
    ("cp1252", "café au lait"),
    ("cp1250", "Půjčovna je otevřená od osmi do šesti. Knihy lze vrátit později."),
    ("cp1250", "Biblioteka jest otwarta od ósmej do szóstej. Książki można zwrócić później."),
    ("cp1250", "A könyveket később is vissza lehet hozni. Őrizze meg a jegyet, kérjük szépen."),
    ("cp1250", "Knjižnica je otvorena od osam do šest, a knjige možete vratiti i kasnije."),
    ("cp1254", "Kütüphane saat sekizden altıya kadar açıktır. Lütfen kartınızı unutmayın."),
    ("cp1254", "Kitapları daha sonra geri getirebilirsiniz, şubeye uğrayın."),
    ("cp1251", "Библиотека открыта с восьми до шести. Книги можно вернуть позже."),
    ("cp1253", "Η βιβλιοθήκη είναι ανοιχτή από τις οκτώ έως τις έξι."),
]


@pytest.mark.parametrize("page, sentence", SENTENCES)
def test_a_sentence_is_read_as_it_was_written(tmp_path, page, sentence):
    (tmp_path / "a.txt").write_bytes(sentence.encode(page))
    found = encoding_of(RawFile(tmp_path / "a.txt"))
    assert sentence.encode(page).decode(found.name) == sentence
    assert found.notice


def test_what_is_no_language_of_a_latin_page_is_left_to_the_detector():
    assert code_page("Книги".encode("cp1251"), ["cp1251", "cp1252"]) is None
    assert code_page(b"caf\xe9", ["cp1250", "cp1252"]) == "cp1252"
    assert code_page(b"plain", ["cp1250", "cp1252"]) is None
