"""A formula is one line that says the same."""

import pytest
from lxml import etree

from trainer.corpus.formulas import formula, mathml


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
        (f"<acc><accPr/><e>{r('x')}</e></acc>", "x\u0302"),
        (f"<limLow><e>{r('lim')}</e><lim>{r('n')}</lim></limLow>", "lim_n"),
        (f"<sPre><sub>{r('1')}</sub><sup>{r('2')}</sup><e>{r('H')}</e></sPre>", "₁²H"),
    ],
)
def test_a_formula_on_one_line(inner: str, line: str) -> None:
    assert formula(etree.fromstring(f"<oMath>{inner}</oMath>")) == line


HALF = "<mfrac><mn>1</mn><mn>2</mn></mfrac>"


@pytest.mark.parametrize(
    "inner, line",
    [
        (HALF, "1/2"),
        (f"<mrow><mn>1</mn>{HALF}</mrow>", "1 1/2"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></mfrac>", "(a+b)/2"),
        ("<msup><mi>x</mi><mn>2</mn></msup><mo>=</mo><mn>9</mn>", "x²=9"),
        ("<msup><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mi>k</mi></msup>", "(a+b)^k"),
        ("<msub><mi>x</mi><mi>k</mi></msub>", "x_k"),
        ("<mover><mi>x</mi><mo>˙</mo></mover>", "x\u0307"),
        ("<mfrac linethickness='0'><mi>n</mi><mi>k</mi></mfrac>", "n over k"),
        ("<msqrt><mi>a</mi><mo>+</mo><mn>9</mn></msqrt>", "√(a+9)"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", "³√(x)"),
        ("<munderover><mo>∑</mo><mn>1</mn><mi>n</mi></munderover><mi>i</mi>", "∑₁ⁿi"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a, b)"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr>"
            "<mtr><mtd><mn>0</mn></mtd><mtd><mn>1</mn></mtd></mtr></mtable>",
            "1, 0; 0, 1",
        ),
        (
            f"<semantics>{HALF}<annotation encoding='application/x-tex'>\\frac12</annotation>"
            "</semantics>",
            r"\frac12",
        ),
        (f"<semantics>{HALF}<annotation-xml><mn>12</mn></annotation-xml></semantics>", "1/2"),
    ],
)
def test_a_formula_of_a_page_on_one_line(inner: str, line: str) -> None:
    assert mathml(etree.fromstring(f"<math>{inner}</math>")) == line
