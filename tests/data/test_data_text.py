"""Texts: from lines of a file to token numbers."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config import Data
from tuner.data import Splits, encoder_from_json, files, read_raw
from tuner.data.splits import Target
from tuner.data.targets import Goal
from tuner.data.text import TextEncoder, fit_texts
from tuner.data.tokens import CUT, _token, words
from tuner.errors import DataError, TunerError, UsageError

Read = Callable[..., Splits]
COLORS = ("red", "green", "blue", "pink")


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows(count: int = 40, **more: Any) -> list[dict[str, Any]]:
    """Texts of five words or six, a target of two classes, and columns of one value a row."""
    texts = [f"the {COLORS[i % 4]} house number {i} {'stands' * (i % 3 == 0)}" for i in range(count)]
    plain = [{"text": text, "target": ("no", "yes")[i % 2]} for i, text in enumerate(texts)]
    return [row | {name: values[i] for name, values in more.items()} for i, row in enumerate(plain)]


def said(read: Read, *args: Any, **data: Any) -> str:
    with pytest.raises(TunerError) as caught:
        read(*args, **data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fit(texts: list[str], train: int | None = None, **data: Any) -> TextEncoder:
    goal = Goal("classification", np.arange(len(texts)) % 2, ("no", "yes"))
    chosen = np.arange(len(texts) if train is None else train)
    return fit_texts(texts, chosen, Data(source="d.jsonl", **data), "text", goal, Target())[0]


def notes(read: Read, *args: Any, **data: Any) -> list[str]:
    return list(read(*args, **data).notes)


# Words


CUTS = {
    "Don't STOP; we'll see Anna's": ["don", "'t", "stop", ";", "we", "'ll", "see", "anna", "'s"],
    "celebrities ' names don\u2019t": ["celebrities", "'", "names", "don", "'t"],
    "3.14 1,000 v1.2 10:30": ["3.14", "1,000", "v1", ".", "2", "10", ":", "30"],
    "foo_bar $5 (ok)": ["foo", "_", "bar", "$", "5", "(", "ok", ")"],
    "so good!!!!!!!! -------- ___": ["so", "good", "!", "!", "!", "-", "-", "-", "_", "_", "_"],
    "漢字とカナ 한국어": ["漢", "字", "と", "カ", "ナ", "한국어"],
    "हिन्दी में": ["हिन्दी", "में"],
    "Cafe\u0301 \ufb01ne \uff11\uff12": ["caf\u00e9", "fine", "12"],
    "❤️ 👍🏽 👩‍👧 ok": ["❤", "👍", "🏽", "👩", "👧", "ok"],
    "a\x00b\x07c z\u00ade\u200bro\ufeff": ["a", "b", "c", "zero"],
    "\ud800 x": ["\ufffd", "x"],
    " \t\n\x1f": [],
}


@pytest.mark.parametrize("text", CUTS)
def test_a_text_is_cut_into_words_numbers_and_marks_of_any_script(text: str) -> None:
    assert words(text) == CUTS[text]


@given(st.text(st.characters(max_codepoint=127)))
def test_a_plain_english_text_is_cut_as_the_pattern_for_every_script_would_cut_it(text: str) -> None:
    assert words(text) == words(text + " é")[:-1]
    assert set(words(text)) == set(_token().findall(text.lower()))


@given(st.text())
def test_texts_that_look_the_same_are_cut_the_same(text: str) -> None:
    for form in ("NFC", "NFD"):
        again = unicodedata.normalize(form, text)
        assert words(again) == words(text)
        assert CUT["character"](again) == CUT["character"](text)
    assert not any(token.isspace() or not token for token in words(text))


# The encoder


any_text = st.one_of(
    st.text(max_size=12), st.sampled_from(["", " ", "red house", "a b c d e", "\x00", "👍 漢字", "\ud800"])
)
some_texts = st.lists(any_text, min_size=2, max_size=12)
tokens = st.sampled_from(["word", "character"])


def fitted(texts: list[str], **data: Any) -> TextEncoder:
    return fit(["red house", *texts], **data)


@settings(max_examples=80)
@given(some_texts, some_texts, tokens, st.one_of(st.none(), st.integers(1, 9)))
def test_padding_is_at_the_end_alone_and_every_row_has_a_token(
    train: list[str], other: list[str], cut: str, length: int | None
) -> None:
    encoder = fitted(train, tokens=cut, length=length)
    for texts in (train, other):
        x = encoder.encode(texts)
        assert x.dtype == np.int32
        assert x.shape == (len(texts), *encoder.shape.input)
        there = x > 0
        assert there[:, 0].all()
        assert (there[:, 1:] <= there[:, :-1]).all()
        assert x.min() >= 0
        assert x.max() < encoder.shape.vocabulary


@settings(max_examples=80)
@given(some_texts, some_texts, tokens)
def test_an_encoder_read_back_from_json_encodes_the_same(train: list[str], other: list[str], cut: str) -> None:
    encoder = fitted(train, tokens=cut)
    again = encoder_from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    assert again.shape == encoder.shape
    assert again.encode(other).tobytes() == encoder.encode(other).tobytes()


@settings(max_examples=80)
@given(some_texts, some_texts, some_texts, tokens)
def test_other_than_training_texts_change_nothing_in_the_encoder(
    train: list[str], one: list[str], two: list[str], cut: str
) -> None:
    train = ["red house", *train]
    encoders = [fit(train + others, len(train), tokens=cut) for others in (one, two, [])]
    assert encoders[0] == encoders[1] == encoders[2]


def test_vocabulary_and_length_come_from_the_training_rows_of_a_file(read: Read) -> None:
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    content = rows(split=parts)
    one = read(lines(content), "d.jsonl")
    for row in content[20:]:
        row["text"] = "altogether other words, and very many of them " * 9
    two = read(lines(content), "d.jsonl")
    assert two.encoder == one.encoder
    assert two.train.x.tobytes() == one.train.x.tobytes()
    assert two.val.x.tobytes() != one.val.x.tobytes()
    assert two.fingerprint != one.fingerprint


def test_numbers_are_given_by_frequency_then_by_alphabet_and_start_at_two() -> None:
    encoder = fit(["b a c c", "d c b"])
    assert encoder.known == ("c", "b", "a", "d")
    assert encoder.shape.vocabulary == 6
    assert encoder.encode(["c b a d what", ""]).tolist() == [[2, 3, 4, 5], [1, 0, 0, 0]]


def test_of_many_words_those_that_occur_once_are_unknown() -> None:
    few = [f"w{i} common" for i in range(900)]
    many = [f"w{i} common" for i in range(1100)]
    assert len(fit(few).known) == 901
    assert fit(many).known == ("common",)
    assert fit([*many, "w7"]).known == ("common", "w7")


def test_at_most_so_many_words_are_known_as_data_vocabulary_says(read: Read) -> None:
    splits = read(lines(rows(400)), "d.jsonl", vocabulary=10)
    assert splits.shape.vocabulary == 12
    assert any(note.startswith("10 different words of the training texts are known, ") for note in splits.notes)


def test_the_length_is_that_of_all_but_the_longest_hundredth_of_training_texts(read: Read) -> None:
    assert fit(["a b c"] * 99 + ["a b c d e f", "a b c d e f g"]).length == 6
    assert fit(["a b c", "a " * 600]).length == 512
    assert fit(["abc", "ab" * 600], tokens="character").length == 1024
    assert fit(["a b c", "d e f"], length=7).length == 7
    splits = read(lines(rows(split=["train"] * 30 + ["val"] * 10)), "d.jsonl", length=5)
    assert "10 training texts have more than 5 tokens; the first 5 are kept" in splits.notes
    assert splits.shape.input == (5,)


def test_a_longer_text_keeps_its_beginning() -> None:
    encoder = fit(["a b c d", "a b c e"], length=2)
    assert encoder.known == ("a", "b")
    assert encoder.encode(["b a a a a", "c"]).tolist() == [[3, 2], [1, 0]]


def test_a_very_long_text_and_a_very_long_word_do_no_harm() -> None:
    encoder = fit(["a " * 200_000, "b" * 300_000, "1" * 100_000, "-" * 100_000])
    assert max(map(len, encoder.known)) == 1
    assert encoder.length == 512


def test_the_shape_tells_a_model_what_it_needs(read: Read) -> None:
    shape = read(lines(rows()), "d.jsonl").shape
    assert (shape.kind, shape.task, shape.outputs, shape.classes) == ("text", "classification", 2, ("no", "yes"))
    assert shape.cardinalities == ()
    assert shape.vocabulary > 10


def test_a_number_can_be_predicted_from_texts(read: Read) -> None:
    splits = read(lines(rows(target=[i / 7 for i in range(40)])), "d.jsonl")
    assert splits.shape.task == "regression"
    assert splits.shape.outputs == 1
    assert encoder_from_json(splits.encoder.to_json()) == splits.encoder


def test_training_texts_without_anything_to_learn_from_are_refused(read: Read) -> None:
    same = lines(rows(text=["the same"] * 40))
    assert said(read, same, "d.jsonl") == (
        "d.jsonl: column 'text': has the same text in every training row; there is nothing to learn"
    )
    blank = lines(rows(text=["\x01" * i for i in range(40)]))
    assert said(read, blank, "d.jsonl") == "d.jsonl: column 'text': no word of the training texts can be learned from"


# JSON lines


GOOD = lines(rows(3))
LINES = {
    "not JSON": (GOOD + "{text: 1}\n", "line 4 is not JSON (Expecting property name enclosed in double quotes at"),
    "a list": (GOOD + '["a"]\n', "line 4 holds a list; an object is needed, such as {'text': 'fine', 'target': 1}"),
    "a text": ('"a"\n' + GOOD, "line 1 holds a text; an object is needed, "),
    "null": (GOOD + "\n\nnull\n", "line 6 holds null; an object is needed, "),
    "twice": (GOOD + '{"text": "a", "text": "b"}\n', "line 4 can't be read (text occurs more than once in it; give"),
    "a line for a name": (GOOD + '{"a\\nb": 1, "a\\nb": 2}\n', "line 4 can't be read ('a\\nb' occurs more than once"),
    "deep": (GOOD + "[" * 100_000, "line 4 is nested too deep; an object of plain values is needed"),
    "digits": (GOOD + '{"a": ' + "1" * 5000 + "}", "line 4 can't be read (Exceeds the limit"),
    "no text": (
        GOOD + '\n{"target": "no"}\n' * 7,
        "7 lines without 'text' (line 5, 7, 9, 11, 13, ...); add it or leave",
    ),
    "null text": (GOOD + '{"target": "no", "text": null}\n', "1 line without 'text' (line 4); add it or leave these"),
    "no target": (GOOD + '{"text": "a"}\n', "1 line without 'target' (line 4); add it or leave these lines out"),
    "nested text": (GOOD + '{"text": ["a"], "target": 1}', "line 4: 'text' holds a list; a text or a number is needed"),
    "nested target": (GOOD + '{"text": "a", "target": {}}', "line 4: 'target' holds an object; a text or a number is"),
    "blank": ("\n \n", "no rows; a JSON object a line is needed, such as {'text': 'fine', 'target': 1}"),
    "no keys": ("{}\n{}\n", "no rows; a JSON object a line is needed, "),
    "empty": ("", "the file is empty"),
    "latin-1": (GOOD.encode() + b'{"text": "\xe9"}', "not UTF-8 (byte 0xe9 at offset"),
    "UTF-16": (GOOD.encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
    "few": (GOOD, "3 rows; at least 10 are needed"),
    "a number": (
        lines([*rows(12), {"text": 7, "target": "no"}]),
        "column 'text': 1 row with int values (row 13); write",
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_what_is_wrong_with_a_line_is_said_in_one_line_that_names_it(read: Read, case: str) -> None:
    content, message = LINES[case]
    told = said(read, content, "d.jsonl")
    assert told.startswith("d.jsonl: "), told
    assert told.removeprefix("d.jsonl: ").startswith(message), told


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_harm(read: Read) -> None:
    plain = read(lines(rows()), "d.jsonl")
    odd = "\ufeff\r\n" + lines(rows()).replace("\n", "\r\n\r\n") + " \n"
    assert read(odd, "d.jsonl").fingerprint == plain.fingerprint
    assert read(gzip.compress(odd.encode()), "d.jsonl.gz").fingerprint == plain.fingerprint
    assert read(lines(rows()).rstrip(), "d.jsonl").fingerprint == plain.fingerprint


def test_a_damaged_gzip_file_and_one_that_expands_beyond_measure_are_refused(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(lines(rows()).encode())
    assert said(read, packed[:-20], "d.jsonl.gz").startswith("d.jsonl.gz: damaged or not a gzip file")
    monkeypatch.setattr(files, "BOMB_BYTES", 1000)
    monkeypatch.setattr(files, "BOMB_RATIO", 2)
    assert "unpacks to more than" in said(read, packed, "d.jsonl.gz")


def test_half_a_character_in_a_file_is_replaced(read: Read) -> None:
    content = rows()
    content[0]["text"], content[1]["text"] = "half \ud800 \U0001f600", "half \ufffd \U0001f600"
    splits = read(lines(content), "d.jsonl", split={"val": 0.2, "test": 0.0})
    x = splits.encoder.encode([content[0]["text"], content[1]["text"]])
    assert x[0].tolist() == x[1].tolist()


def test_a_line_may_lack_other_keys(read: Read) -> None:
    content = rows()
    content[3]["author"], content[5]["meta"] = "Ann", {"deep": [1]}
    told = notes(read, lines(content), "d.jsonl")
    assert "left out 2 columns beside the text: author, meta; to use them, say data.kind: table" in told


def test_json_lines_without_a_text_are_a_table(read: Read) -> None:
    random = np.random.default_rng(0)
    content = [{"a": random.normal(), "b": ("x", None)[i % 2], "y": i % 2} for i in range(40)]
    for row in content[:20]:
        row.pop("a")
    splits = read(lines(content), "d.jsonl", target="y")
    assert splits.shape.kind == "table"
    assert "filled missing values with the median in 1 column: a" in splits.notes


# Which data are texts


def frame(count: int = 40, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(rows(count, **columns))


def test_texts_are_the_same_whatever_file_they_come_from(read: Read) -> None:
    found = [
        read(lines(rows()), "d.jsonl"),
        read(frame(), "d.csv", target="target"),
        read(frame(), "d.parquet", target="target"),
        read(frame().rename(columns={"text": "review", "target": "t"}), "e.csv", text="review"),
    ]
    assert {splits.shape.kind for splits in found} == {"text"}
    assert len({splits.train.x.tobytes() for splits in found}) == 1
    assert len({splits.fingerprint for splits in found[:3]}) == 1


def test_the_target_of_texts_is_target_if_nothing_else_is_said(read: Read) -> None:
    for content, name in ((lines(rows()), "d.jsonl"), (frame(), "d.csv"), (frame(), "d.parquet")):
        assert read(content, name, target=None).shape.outputs == 2
    told = said(read, frame().rename(columns={"target": "label"}), "d.csv", target=None)
    assert told == "d.csv: data.target: say which column to predict, for instance 'label'; columns: text, label"
    table = pd.DataFrame({"a": np.arange(40) % 7, "target": [0, 1] * 20})
    assert "say which column to predict, for instance 'target'" in said(read, table, "d.csv", target=None)


def test_a_few_short_words_are_texts_in_json_lines_and_a_category_elsewhere(read: Read) -> None:
    short = [COLORS[i % 4] for i in range(40)]
    other = list(np.random.default_rng(0).normal(size=40))
    lines_of = read(lines(rows(text=short)), "d.jsonl")
    assert lines_of.shape.kind == "text"
    assert "kind text: column text holds few short values; if they are categories, say data.kind: table" in (
        lines_of.notes
    )
    category = read(frame(text=short, a=other), "d.csv", target="target")
    assert category.shape.kind == "table"
    assert category.shape.cardinalities == (5,)
    assert "kind table: column text holds categories; if they are texts, say data.kind: text" in category.notes
    for said_so in ({"kind": "text"}, {"text": "text"}):
        splits = read(frame(text=short, a=other), "d.csv", target="target", **said_so)
        assert splits.shape.kind == "text"
        assert "left out 1 column beside the text: a" in splits.notes
    single = read(frame(text=[f"word{i}" for i in range(40)]), "d.csv", target="target")
    assert single.shape.kind == "text"
    assert read(lines(rows(text=short, a=other)), "d.jsonl", kind="table").shape.kind == "table"


def test_a_text_in_a_csv_file_is_what_stands_there(read: Read, tmp_path: Path) -> None:
    texts = [f"the house {i}" for i in range(36)] + ["NA", "", "007", "null"]
    splits = read(frame(text=texts), "d.csv", target="target", split={"test": 0.0})
    raw, _ = read_raw(tmp_path / "d.csv", splits.encoder)
    assert list(raw["text"]) == texts
    assert splits.encoder.encode(raw).tobytes() == splits.encoder.encode(texts).tobytes()
    assert "1 text is empty" in splits.notes
    numbers = read(frame(text=[f"0{i}" for i in range(40)]), "n.csv", target="target", kind="text")
    assert all(number.startswith("0") for number in numbers.encoder.to_json()["known"])


def test_a_long_field_of_a_csv_file_is_read(read: Read) -> None:
    texts = [f"house {i}" for i in range(39)] + ["word " * 50_000]
    assert read(frame(text=texts), "d.csv", target="target").shape.kind == "text"


NAMED = {
    "unknown": ({"text": "txt"}, "data.text: no column 'txt' (did you mean 'text'?); columns: text, target"),
    "target": ({"text": "target"}, "data.text: 'target' is the target"),
    "dropped": ({"text": "text", "drop": ("text",)}, "data.drop: 'text' holds the texts"),
    "table": ({"text": "text", "kind": "table"}, "data.text 'text' is for texts, and data.kind is table; leave one"),
    "no groups": ({"split": {"groups": "author"}}, "data.split.groups: no column 'author'; columns: text, target"),
}


@pytest.mark.parametrize("case", NAMED)
def test_columns_that_do_not_go_together_are_refused(read: Read, case: str) -> None:
    data, message = NAMED[case]
    assert said(read, lines(rows()), "d.jsonl", **data).startswith(f"d.jsonl: {message}")


def test_kind_text_needs_a_column_of_that_name_or_another_that_is_named(read: Read) -> None:
    renamed = frame().rename(columns={"text": "body", "target": "y"})
    told = said(read, renamed, "d.csv", target="y", kind="text")
    assert told == "d.csv: data.text: no column 'text'; columns: body, y"
    arrays = {"X": np.ones((40, 6, 5), dtype=np.uint8), "y": np.arange(40) % 2}
    assert (
        said(read, arrays, "d.npz", text="a")
        == "d.npz: data.text 'a' names a column, and images have none; leave it out"
    )
    assert "data.kind text needs a column of text" in said(read, arrays, "d.npz", kind="text")


def test_rows_without_a_text_are_counted_and_named(read: Read) -> None:
    texts = [None if i in (3, 8) else f"the house {i}" for i in range(40)]
    told = said(read, frame(text=texts), "d.parquet", target="target")
    assert told == "d.parquet: column 'text': 2 rows without a text (row 4, 9); leave these rows out"


# Split


def test_an_official_split_groups_and_time_divide_texts_as_they_do_tables(read: Read) -> None:
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    official = read(lines(rows(split=parts)), "d.jsonl")
    assert official.train.rows.tolist() == list(range(20))
    assert official.test is not None
    assert official.test.rows.tolist() == list(range(30, 40))
    groups = [i % 8 for i in range(40)]
    grouped = read(lines(rows(author=groups)), "d.jsonl", split={"groups": "author"})
    assert not {int(row) % 8 for row in grouped.train.rows} & {int(row) % 8 for row in grouped.val.rows}
    timed = read(lines(rows(day=[39 - i for i in range(40)])), "d.jsonl", split={"time": "day"})
    assert timed.train.rows.min() > timed.val.rows.max()
    assert not any("left out" in note for splits in (official, grouped, timed) for note in splits.notes)
    strange = notes(read, lines(rows(split=["a", "b"] * 20)), "d.jsonl")
    assert "left out 1 column beside the text: split; to use them, say data.kind: table" in strange
    assert not any("used as a feature" in note for note in strange)


def test_equal_texts_in_two_parts_are_noted_and_kept_together_when_asked_for(read: Read) -> None:
    content = rows(split=["train"] * 20 + ["val"] * 20, author=list(range(40)))
    for row in (21, 25):
        content[row]["text"] = content[4]["text"]
    told = notes(read, lines(content), "d.jsonl")
    assert any(note.startswith("2 of 20 val rows are identical to training rows") for note in told)
    for row in content:
        row.pop("split")
    grouped = read(lines(content), "d.jsonl", split={"groups": "text"})
    assert not any("identical" in note for note in grouped.notes)


def test_empty_texts_and_texts_with_different_targets_are_noted(read: Read) -> None:
    texts = [f"the house {i // 2}" for i in range(38)] + ["", " \n"]
    told = notes(read, lines(rows(text=texts)), "d.jsonl")
    assert "19 texts occur with different targets" in told
    assert "2 texts are empty" in told
    assert not any("different targets" in note for note in notes(read, lines(rows()), "d.jsonl"))


def test_another_seed_of_the_split_draws_other_validation_rows_and_fits_anew(read: Read) -> None:
    one, two = (read(lines(rows(200)), "d.jsonl", seed_of_split=seed) for seed in (1, 2))
    assert one.val.rows.tolist() != two.val.rows.tolist()
    assert one.test_hash == two.test_hash
    assert one.encoder != two.encoder


# Examples to predict


def test_examples_are_encoded_as_in_training_wherever_they_come_from(read: Read, tmp_path: Path) -> None:
    splits = read(lines(rows()), "d.jsonl")
    texts, table = [row["text"] for row in rows()], frame().drop(columns="target")
    table.to_csv(tmp_path / "e.csv", index=False)
    table.to_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.txt").write_bytes("\r\n".join(texts).encode() + b"\r\n")
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    (tmp_path / "bare.jsonl").write_text(lines([{"text": text} for text in texts]))
    np.savez(tmp_path / "e.npz", X=np.array(texts))
    sources = [tmp_path / name for name in ("e.csv", "e.parquet", "e.txt", "e.txt.gz", "bare.jsonl", "e.npz")]
    sources += [table, dict(table), frame(), texts, tuple(texts), table["text"]]
    sources += [str(tmp_path / "d.jsonl"), np.array(texts), np.array(texts, dtype=object)[:, None]]
    for source in sources:
        raw, count = read_raw(source, splits.encoder)
        assert count == 40
        assert splits.encoder.encode(raw)[splits.val.rows].tobytes() == splits.val.x.tobytes(), source


def test_every_line_of_a_plain_text_is_a_text_but_for_what_ends_the_last_one(read: Read, tmp_path: Path) -> None:
    encoder = read(lines(rows()), "d.jsonl").encoder
    (tmp_path / "e.txt").write_text("the house\n\n  \nred\n\n", encoding="utf-8")
    assert read_raw(tmp_path / "e.txt", encoder) == (["the house", "", "  ", "red", ""], 5)


BAD = {
    "one text": ("the house.", "the house.: no such file"),
    "none": ([], "no examples: there must be at least one row"),
    "a number": (7, "examples are a int; a list of texts or a table is needed"),
    "a missing one": (["a", None], "examples: column 'text': 1 row without a text (row 2); leave these rows out"),
    "numbers": ([1, 2], "examples: column 'text': 2 rows with int values (row 1, 2); write them as texts or leave"),
    "columns": (np.array([["a", "b"]]), "examples have shape (1, 2); one text a row is needed, (rows,) or (rows, 1)"),
    "no column": (pd.DataFrame({"txt": ["a"]}), "examples lack the column 'text', which holds the texts (did you mean"),
    "two columns": (pd.DataFrame([["a", "b"]], columns=["text"] * 2), "examples have more than one column 'text', wh"),
    "another file": (Path("e.doc"), "e.doc: no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_examples_that_are_no_texts_are_refused_in_one_line(read: Read, case: str) -> None:
    encoder = read(lines(rows()), "d.jsonl").encoder
    source, message = BAD[case]
    with pytest.raises(DataError) as caught:
        encoder.encode(read_raw(source, encoder)[0])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_one_text_is_not_taken_for_a_list_of_letters(read: Read) -> None:
    with pytest.raises(DataError, match=r"^examples are one text; give a list of texts, also for one$"):
        read(lines(rows()), "d.jsonl").encoder.encode("the house")


# A backbone's own tokens


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with the tokenizer of a small backbone that takes 9 tokens: 0 pads, 2 begins and 3 ends a text."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "house", *COLORS]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    whole = tokenizers.Tokenizer(model)
    whole.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    whole.add_special_tokens(vocabulary[:4])
    whole.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    whole.enable_padding(length=64)
    folder = tmp_path / "tiny"
    folder.mkdir()
    whole.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"max_position_embeddings": 9}')
    return folder


def test_a_backbone_numbers_tokens_its_own_way_and_keeps_its_end(read: Read, tokenizer: Path) -> None:
    splits = read(lines(rows()), "d.jsonl", tokens="tiny")
    encoder = splits.encoder
    assert splits.shape.vocabulary == 10
    assert splits.shape.input == (8,)
    texts = ["the pink house", "", "the [PAD] house", "red " * 20]
    assert encoder.encode(texts).tolist() == [
        [2, 4, 9, 5, 3, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0, 0],
        [2, 4, 5, 3, 0, 0, 0, 0],
        [2, 6, 6, 6, 6, 6, 6, 3],
    ]
    document = json.loads(json.dumps(encoder.to_json()))
    (tokenizer / "tokenizer.json").unlink()
    again = encoder_from_json(document)
    assert again == encoder
    assert again.encode(texts).tobytes() == encoder.encode(texts).tobytes()


def test_what_is_encoded_can_be_written_to_and_is_encoded_the_same_again(read: Read, tokenizer: Path) -> None:
    encoder = read(lines(rows()), "d.jsonl", tokens="tiny").encoder
    first = encoder.encode(["the house"])
    first[:] = 0
    assert encoder.encode(["the house"])[0, 0] == 2


def test_texts_are_no_longer_than_a_backbone_takes(read: Read, tokenizer: Path) -> None:
    texts = [f"the house {'red ' * 20} {i}" for i in range(40)]
    content = lines(rows(text=texts, split=["train"] * 20 + ["val"] * 20))
    splits = read(content, "d.jsonl", tokens="./tiny")
    assert splits.shape.input == (9,)
    assert "20 training texts have more than 9 tokens or just as many; the first 9 are kept" in splits.notes
    assert read(content, "d.jsonl", tokens="tiny", length=3).shape.input == (3,)
    for length in (2, 10):
        told = said(read, content, "d.jsonl", tokens=str(tokenizer), length=length)
        assert told.startswith("data.length: ")
        assert told.endswith(f"takes texts of 3 to 9 tokens, and {length} is said")


def test_a_tokenizer_that_can_not_be_used_is_refused(read: Read, tokenizer: Path) -> None:
    content = lines(rows())
    allowed = "word, character, minilm, auto, or a folder with a tokenizer.json is allowed"
    told = said(read, content, "d.jsonl", tokens="words")
    assert told.startswith("data.tokens: there is no ")
    assert told.endswith(f"(did you mean 'word'?); {allowed}")
    plain = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(plain.replace("[PAD]", "[NIL]"))
    assert "has no padding; only one that pads with token 0 can be used" in said(
        read, content, "d.jsonl", tokens="tiny"
    )
    (tokenizer / "tokenizer.json").write_text(plain.replace("[PAD]", "[X]").replace("[UNK]", "[PAD]"))
    assert "pads with token 1; only one" in said(read, content, "d.jsonl", tokens="tiny")
    (tokenizer / "tokenizer.json").write_text("{}")
    told = said(read, content, "d.jsonl", tokens="tiny")
    assert "tokenizer.json can't be read as a tokenizer (" in told
    with pytest.raises(UsageError):
        read(content, "d.jsonl", tokens="words")
