"""Mutated texts: shipped space files, and whatever else is written in lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

SPACES = Path(__file__).parents[2] / "search_spaces"
WORDS = (
    "", "0", "-1", "1", "1e-400", "1e400", "-1e308", ".inf", "-.inf", ".nan", str(2**53 + 1), str(2**63), str(-(2**63)),
    "9" * 5000, "1_000", "1:30", "0x10", "012", "true", "no", "null", "~", "''", '""', "'x", '"\\e[31m"', '"\\q"', "[]",
    "{}", "[[1], 2]", "[1, 1]", "{low: 1}", "{low: 2, high: 1}", "{low: 0, high: 1, log: true}", "{low: 1, high: 1}",
    "{low: 1, high: 9, step: 0}", "{low: 0.0, high: 1.0, step: 1e-300}", "{choices: []}", "{choices: [a, 1, true, null]}",
    "{low: 1, high: 9, or: 0}", "{low: 1, high: 9, or: 5}", "{low: 1, high: 4, when: {model.family: cnn}}",
    "{low: 1, high: 4, when: {model.width: 1}}", "{low: 1, high: 4, when: {x.y: [1]}}", "&a [1]", "*a", "&a [*a]",
    "!!python/name:os.system", "!!str 3", "!x", "|\n  text\n", ">-\n  text\n", "@x", "`x`", "%x", "? x", "- x", "os:system",
    "a.b:c", "../../x", "/dev/null", "a/b", "x" * 300, "\u00e9\u4e2d", "\U0001f600", "\u202e", "\ufeff", "\u2028", "\x85",
    "\0", "\x1b[31m", "\t", "none", "auto", "[" * 60, "{a: " * 60, "1" * 400 + ".5", "-0.0", "1.", "+.5", "2020-01-01", "<<",
)  # fmt: skip
SIGNS = "{}[]:,-&*!|>%@`'\"#? \n\t\r0e.\\~=<\0\u00e9\u2028\ufeff"
Lines = list[str]


def space(random: Random) -> bytes:
    """Return a space file that was mutated a few times; seldom one made of nothing."""
    if random.random() < 0.05:
        return noise(random)
    text = random.choice(_shipped())
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        text = random.choice(CHANGES)(text, random)
    return flipped(text.encode("utf-8", "surrogatepass"), random) if random.random() < 0.15 else encoded(text, random)


@cache
def _shipped() -> tuple[str, ...]:
    found = (path.read_text() for path in sorted(SPACES.glob("*.yaml")))
    # without their comments, which take most of the time and tell nothing
    lines = ([re.sub(r"\s+#.*|^#.*", "", line) for line in text.splitlines()] for text in found)
    return tuple("\n".join(line for line in some if line) for some in lines)


def noise(random: Random) -> bytes:
    """Return bytes, or signs that mean something, in no order."""
    if random.random() < 0.5:
        return random.randbytes(random.randrange(200))
    return "".join(random.choices([*SIGNS, *WORDS[:40]], k=random.randrange(60))).encode()


def encoded(text: str, random: Random) -> bytes:
    """Return a text in some encoding, mostly in the one that is allowed."""
    form = random.choices(("utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"), (90, 4, 2, 2, 2))[0]
    return text.encode(form, "replace")


def flipped(content: bytes, random: Random) -> bytes:
    """Return bytes of which some are changed, cut out or put in."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        place = random.randrange(len(found) + 1)
        way = random.random()
        if way < 0.6 and place < len(found):
            found[place] ^= 1 << random.randrange(8)
        elif way < 0.8:
            del found[place : place + random.choice((1, 4, 50))]
        else:
            found[place:place] = random.randbytes(random.choice((1, 4)))
    return bytes(found[: random.randrange(len(found) + 1)] if random.random() < 0.1 else found)


def _lines(change: Callable[[Lines, int, Random], None]) -> Callable[[str, Random], str]:
    def changed(text: str, random: Random) -> str:
        lines = text.split("\n")
        change(lines, random.randrange(len(lines)), random)
        return "\n".join(lines)

    return changed


def _cut(lines: Lines, at: int, random: Random) -> None:
    del lines[at : at + random.choice((1, 1, 1, 5))]
    lines += [] if lines else [""]


def _doubled(lines: Lines, at: int, random: Random) -> None:
    lines.insert(random.randrange(len(lines) + 1), lines[at])


def _swapped(lines: Lines, at: int, random: Random) -> None:
    other = random.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _indented(lines: Lines, at: int, random: Random) -> None:
    lines[at] = random.choice((" ", "  ", "\t", "   ", "")) + (
        lines[at] if random.random() < 0.5 else lines[at].lstrip()
    )


def _lengthened(lines: Lines, at: int, random: Random) -> None:
    lines[at] = lines[at] * random.choice((2, 3, 200))


def value(text: str, random: Random) -> str:
    """Return a text in which one value, or the name of a key, is another."""
    keys = "" if random.random() < 0.3 else r"(?!:)(?<![A-Za-z_])"  # the name of a key, too
    places = list(re.finditer(rf"[^\s{{}}\[\],:]+{keys}", text))
    if not places:
        return random.choice(WORDS)
    found = random.choice(places)
    new = random.choice((random.choice(WORDS), random.choice(places)[0], _near(found[0], random)))
    return text[: found.start()] + new + text[found.end() :]


def _near(word: str, random: Random) -> str:
    """Return a word that may well be right in the place of another."""
    try:
        number = float(word)
    except ValueError:
        return random.choice(("mlp", "auto", "none", "true", "0", "3", "0.5", word + word))
    return random.choice(
        (f"{number:.0f}", str(number), f"{number * 3:g}", f"{number / 7:e}", str(number + 1), str(-number))
    )


def sign(text: str, random: Random) -> str:
    """Return a text with a sign more, or less."""
    place = random.randrange(len(text) + 1)
    return (
        text[:place] + (random.choice(SIGNS) if random.random() < 0.6 else "") + text[place + random.choice((0, 1)) :]
    )


def letter(text: str, random: Random) -> str:
    """Return a text with two letters of a word exchanged, as hands do."""
    places = [found.start() for found in re.finditer(r"[a-z](?=[a-z])", text)]
    if not places:
        return text
    at = random.choice(places)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


CHANGES: tuple[Callable[[str, Random], str], ...] = (
    value, value, value, value, value, value, value, sign, letter,
    _lines(_cut), _lines(_doubled), _lines(_swapped), _lines(_indented), _lines(_lengthened),
)  # fmt: skip
