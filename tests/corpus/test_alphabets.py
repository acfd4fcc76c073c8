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
    ("cp1255", "הספרייה פתוחה בימים ראשון עד חמישי משעה תשע בבוקר."),
    ("cp862", "הספרייה פתוחה בימים ראשון עד חמישי משעה תשע בבוקר."),
    ("cp1257", "Įrankius reikia grąžinti iki penktadienio vakaro, žiūrėkite skelbimą."),
    ("cp1257", "Instrumenti jāatdod līdz piektdienas vakaram, šomēnes arī vēlāk."),
    ("mac_roman", "Die Bücherei ist von acht bis sechs Uhr geöffnet."),
    ("mac_roman", "Les élèves étudient à la bibliothèque, où ils sont reçus."),
    ("cp437", "El niño no sabe dónde está la biblioteca mañana. ¿Quién lo sabe?"),
    ("cp850", "Die Bücherei ist von acht bis sechs Uhr geöffnet, für größere Geräte länger."),
    ("cp852", "Nářadí je třeba vrátit do pátečního večera. Za každý den zpoždění se platí."),
    ("iso8859_2", "Nářadí je třeba vrátit do pátečního večera. Za každý den zpoždění se platí."),
    ("cp866", "Библиотека открыта с восьми до шести. Книги можно вернуть позже."),
    ("mac_cyrillic", "Библиотека открыта с восьми до шести. Книги можно вернуть позже."),
    ("cp1256", "يجب إعادة الأدوات قبل مساء يوم الجمعة."),
    ("cp874", "เครื่องมือต้องคืนก่อนเย็นวันศุกร์"),
    ("cp932", "図書館は八時から六時まで開いています。本は後で返すこともできます。"),
    ("gb18030", "图书馆从八点开放到六点。书籍可以稍后归还。"),
    ("cp949", "도서관은 여덟 시부터 여섯 시까지 엽니다. 책은 나중에 반납해도 됩니다."),
]


@pytest.mark.parametrize("page, sentence", SENTENCES)
def test_a_sentence_is_read_as_it_was_written(tmp_path, page, sentence):
    (tmp_path / "a.txt").write_bytes(sentence.encode(page))
    found = encoding_of(RawFile(tmp_path / "a.txt"))
    assert sentence.encode(page).decode(found.name) == sentence
    assert found.notice


def test_what_is_no_language_of_these_pages_is_left_to_the_detector():
    assert code_page("図書館は八時から".encode("cp932")) is None
    assert code_page(bytes(range(128, 256))) is None
    assert code_page(b"plain") is None
    assert code_page(b"caf\xe9") == "cp1252"
