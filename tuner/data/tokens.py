"""Cuts a text into tokens: words or characters.

Decides what a word is, for any script. Knows no vocabulary and no numbers.

Words: a text is brought to Unicode's form NFKC and to lower case; a token is a run of letters and digits with its
combining marks, a number such as 3.14, one punctuation mark or symbol, or an English ending after an apostrophe
("don't" is "don" and "'t"). Scripts that put no spaces between words (Han, Kana, Thai, Lao, Khmer, Burmese) give
a token a character. What can't be seen (control characters, joiners, soft hyphens) is no token, and of a run of one
and the same mark three are kept, for a ruled line would fill a text. Characters: form NFC, the case and every space
kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

ENDINGS = r"'(?:s|t|re|ve|ll|d|m)\b"
NUMBER = r"\d+(?:[.,]\d+)+"
ASCII_TOKEN = re.compile(rf"{NUMBER}|[a-z0-9]+|{ENDINGS}|[!-/:-@\[-`{{-~]")
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
CONTROL = r"\x00-\x1f\x7f-\x9f"
UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
SURROGATE = re.compile("[\ud800-\udfff]")
RULED = re.compile(r"([\W_])\1{3,}")
APOSTROPHES = {0x2018: "'", 0x2019: "'"}


def words(text: str) -> list[str]:
    """Return the words, numbers and marks of a text in order."""
    if text.isascii():
        return ASCII_TOKEN.findall(RULED.sub(r"\1\1\1", text.lower()))
    seen = UNSEEN.sub("", unicodedata.normalize("NFKC", mended(text))).translate(APOSTROPHES)
    return _token().findall(RULED.sub(r"\1\1\1", seen.lower()))


def characters(text: str) -> list[str]:
    """Return the characters of a text in order; a line ends in \\n."""
    plain = text if text.isascii() else unicodedata.normalize("NFC", mended(text))
    return list(plain.replace("\r\n", "\n"))


CUT: dict[str, Callable[[str], list[str]]] = {"word": words, "character": characters}


def mended(text: str) -> str:
    """Return a text without lone surrogates, which JSON can write and UTF-8 can't."""
    if not SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _token() -> re.Pattern[str]:
    """Return the pattern of a token in any script; Python's `re` has no class of combining marks, so one is made."""
    marks = _ranges([code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"])
    word = rf"[^\W_{UNSPACED}]+(?:[{marks}]+[^\W_{UNSPACED}]*)*"
    return re.compile(rf"{NUMBER}|{word}|[{UNSPACED}][{marks}]*|{ENDINGS}|[^\w\s{marks}{CONTROL}]|_")


def _ranges(codes: list[int]) -> str:
    """Return ascending codes as ranges of a character class, which match faster than a list of characters."""
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code + 1 != after]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
