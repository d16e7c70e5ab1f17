"""Numbers as people and models write them: `read` decides whether a text is one number, and which.

The rule, on text that `swirl.core.grading.fold` has folded:

- The text is one number, or none at all. Before it may stand a sign and a currency, after it a unit.
- The number: ASCII digits with a point for decimals; `1,000`, `1'000`, `1 000` and `1,00,000` as thousands. Points
  and commas are read as in English: `1.234` is less than two, and `1.234,50` is no number. Also fractions (`1/2`,
  `1 1/2`), powers (`10^3`, `2**10`) and powers of ten (`1e3`, `1.5 x 10^6`).
- Currency: any sign (`$`, `US$`), ISO code or common abbreviation before the number, any sign after it. Currency and
  per cent signs are dropped and not compared: `$10` and `10%` are 10, and `50%` is 50, not 0.5.
- Words that scale: hundred to trillion, dozen, `k`, `mn`, `bn`, after a currency also `m` and `b`: `10 million` is not
  10. `5M` and `5B` without a currency may be metres or millions, and are no numbers.
- Unit: at most four words. No unit: a word that would make it another number (`10 or 11`, `3 and a half`, `5 thirds`,
  `10 squared`, `44 BC`), an ending (`11th`, `1990s`, `10x`), a month (`7 March` is a date), what a year is put before
  (`2006 season`), or a name, which begins with a capital (`50 Cent`, `3 Doors Down`; but `5 Canadian dollars`).
- Emphasis is dropped (`**42**`, `_42_`, a code mark, quotes, `$42$`, `\\boxed{42}`), and so are `The answer is` and `=`
  before the number.

So ranges, dates, scores, equations, ordinals, numbers in words, lists and names with digits are no numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

SIGNS = "$£¤¥֏؋৲৳૱௹฿៛﷼\u20a0-\u20cf"
"""The currency signs, as they stand between the brackets of a regular expression; without ¢, a hundredth."""

_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD
IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR
MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP
SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER
ZAR ZMW ZWG
""".split()
_MONEY = frozenset(code.lower() for code in _CODES) | frozenset(
    "baht buck cedi dinar dirham dollar dong euro forint franc hryvnia koruna krona krone kroner kronor leu lev lira"
    " naira peso pound quid rand real reais renminbi ringgit riyal rouble ruble rupee rupiah shekel shilling taka won"
    " yen yuan zloty".split()
)
"""Currencies in words and codes, lower case, singular."""

_SCALES = {
    **{"hundred": 100, "dozen": 12, "thousand": 10**3, "k": 10**3},
    **{"million": 10**6, "mn": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12},
}
_SCALES_OF_MONEY = {"m": 10**6, "b": 10**9}
_SCALES_OF_HEAT = ("Celsius", "Fahrenheit", "Kelvin")
_ENDING = re.compile(r"'?(?:st|nd|rd|th|s|o|a|x)(?![^\W\d_])", re.IGNORECASE)
"""What may not follow the digits without a blank: ordinals, decades, house numbers, multiples."""

_NO_UNIT = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety tens hundreds thousands millions billions"
    " trillions dozens lakh lakhs crore crores half halves third thirds quarter quarters fourth fourths fifth fifths"
    " sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth"
    " thousandths and or nor but not no to through until than versus vs plus minus over by x squared cubed negative"
    " below less is are was were bc bce season election census championship tournament"
    " edition january february march april may june july august september october november december"
    " jan feb mar apr jun jul aug sep sept oct nov dec".split()
)

_GROUPED = (
    r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:'[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}"
)
_FIGURE = rf"(?:(?:(?:{_GROUPED})(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_POWER = r"(?:\^|\*\*)[{(]?(?P<%s>[-+]?[0-9]{1,3})[)}]?"
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?P<money>(?:[A-Z]{{0,3}}[{SIGNS}]|(?:{'|'.join(_CODES)})(?![A-Za-z])"
    r"|(?:Rs|Rp|RM|[Kk]r|Fr|zł|Kč|Ft)(?:\.|(?![A-Za-z]))) *)?(?P<inner>[-+])?"
    r"(?:(?P<whole>[0-9]+) (?P<part>[0-9]+/[0-9]+)"
    rf"|(?P<top>{_FIGURE}) ?/ ?(?P<bottom>{_FIGURE})"
    rf"|(?P<base>{_FIGURE}){_POWER % 'power'}"
    rf"|(?P<figure>{_FIGURE})(?:[eE](?P<e>[-+]?[0-9]{{1,3}})| ?[xX×*·] ?10{_POWER % 'ten'})?)(?![0-9])"
    rf"(?: ?(?:[%¢{SIGNS}]|per ?cent\b))?"
)
_UNIT = re.compile(r" */?\(?(?:[^\W\d_]|[°'\"])(?:[^\W\d_]|[-°'\"./() ]|\^[23])*")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*(?:\^[23])?|[°'\"]")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3}|`{1,3}|~~|\$\$)(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_WRAPPED = re.compile(r"\\boxed\{(.+)\}|\\\((.+)\\\)|\"(.+)\"|'(.+)'")
_INTRODUCTION = re.compile(r"(?:(?:the )?(?:final )?answer(?: is)?:?|=) *(?=\S)", re.IGNORECASE)
_LONGEST, _LONGEST_UNIT = 100, 4
"""Longest text, in characters, that is read as a number, and most words of its unit."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number with the words of its unit in lower case; no words where it has none."""

    value: Fraction
    unit: tuple[str, ...] = ()

    @property
    def money(self) -> bool:
        """Whether the unit is a currency: `dollars`, `us dollars`, `eur`."""
        return bool(self.unit) and _is_money(self.unit[-1])


def read(text: str) -> Quantity | None:
    """The number that the text is, by the rule of this module; None for any other text. Never raises."""
    plain = _without_emphasis(" ".join(text.split())) if len(text) <= 2 * _LONGEST else ""
    match = _NUMBER.match(plain) if len(plain) <= _LONGEST else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    value, rest = _value(match), plain[match.end() :]
    if value is None or not rest.strip():
        return None if value is None else Quantity(value)
    return _with_unit(value, rest, bool(match["money"])) if _UNIT.fullmatch(rest) else None


def _without_emphasis(text: str) -> str:
    """The text without a full stop at its end, an introduction, and marks around it, which may lie in one another."""
    before = None
    while text != before:
        before = text
        text = _EMPHASIS.sub(r"\2", text.replace("\\$", "$").replace("\\%", "%").removesuffix("."))
        text = _INTRODUCTION.sub("", text, count=1) if _INTRODUCTION.match(text) else text
        wrapped = _WRAPPED.fullmatch(text)
        text = next(part for part in wrapped.groups() if part).strip() if wrapped else text
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None where it divides by zero."""
    try:
        if match["whole"]:
            value = int(match["whole"]) + Fraction(match["part"])
        elif match["top"]:
            value = _fraction(match["top"]) / _fraction(match["bottom"])
        elif match["base"]:
            value = _fraction(match["base"]) ** int(match["power"])
        else:
            value = _fraction(match["figure"]) * Fraction(10) ** int(match["e"] or match["ten"] or 0)
    except ZeroDivisionError:
        return None
    return -value if "-" in (match["sign"], match["inner"]) else value


def _fraction(figure: str) -> Fraction:
    return Fraction(re.sub("[,' ]", "", figure))


def _with_unit(value: Fraction, rest: str, money: bool) -> Quantity | None:
    """The value scaled by the first words of `rest`, with the others as its unit; None if they are not a unit."""
    words = _WORD.findall(rest)
    if _ENDING.match(rest) or (not money and words[0] in ("M", "B", "b")):
        return None
    scales = {**_SCALES, **_SCALES_OF_MONEY} if money else _SCALES
    while words and words[0].lower() in scales:
        value *= scales[words.pop(0).lower()]
    unit = tuple(word.lower() for word in words)
    if len(unit) > _LONGEST_UNIT or not _NO_UNIT.isdisjoint(unit):
        return None
    names = [word for word in words if word[:1].isupper() and word[1:].islower() and word not in _SCALES_OF_HEAT]
    if names and not _is_money(unit[-1]):
        return None
    return Quantity(value, unit)


def _is_money(word: str) -> bool:
    return word in _MONEY or word.removesuffix("s") in _MONEY
