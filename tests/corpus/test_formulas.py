"""A formula is one line that says the same."""

import pytest
from lxml import etree

from trainer.corpus.formulas import formula


def r(words: str) -> str:
    return f"<r><rPr/><t>{words}</t></r>"


@pytest.mark.parametrize(
    "inner, line",
    [
        (f"<f><num>{r('a+b')}</num><den>{r('2')}</den></f>", "(a+b)/2"),
        (f"<sSup><e>{r('x')}</e><sup>{r('2')}</sup></sSup>", "x²"),
        (f"<sSub><e>{r('x')}</e><sub>{r('k')}</sub></sSub>", "x_k"),
        (f"<sSubSup><e>{r('x')}</e><sub>{r('0')}</sub><sup>{r('n')}</sup></sSubSup>", "x₀ⁿ"),
        (f"<rad><deg/><e>{r('x')}</e></rad>", "√(x)"),
        (f"<rad><deg>{r('3')}</deg><e>{r('x')}</e></rad>", "³√(x)"),
        (
            f'<nary><naryPr><chr val="∑"/></naryPr><sub>{r("i=1")}</sub><sup>{r("n")}</sup>'
            f"<e>{r('i')}</e></nary>",
            "∑_(i=1)ⁿ i",
        ),
        (f'<d><dPr><begChr val="["/><endChr val="]"/></dPr><e>{r("a")}</e></d>', "[a]"),
        (f"<d><e>{r('a')}</e><e>{r('b')}</e></d>", "(a|b)"),
        (f"<func><fName>{r('sin')}</fName><e>{r('x')}</e></func>", "sin x"),
        (
            f"<m><mr><e>{r('1')}</e><e>{r('0')}</e></mr>"
            f"<mr><e>{r('0')}</e><e>{r('1')}</e></mr></m>",
            "1, 0; 0, 1; ",
        ),
        (f"<acc><accPr/><e>{r('x')}</e></acc>", "x"),
    ],
)
def test_a_formula_on_one_line(inner: str, line: str) -> None:
    assert formula(etree.fromstring(f"<oMath>{inner}</oMath>")) == line
