"""Space files and study settings that are wrong; all end with 2, or are noted."""

from __future__ import annotations

from pathlib import Path

from cases import Case, Content, replaced
from command import SMALL

WIDTH = "{low: 4, high: 12}"


def changed(*pairs: tuple[str, str]) -> str:
    return replaced(SMALL, *pairs)


def width(text: str) -> str:
    return changed((WIDTH, text))


def with_line(line: str) -> str:
    return f"{SMALL}{line}\n"


FILES: dict[str, Content] = {
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "empty": "",
    "comments alone": "# data: {source: x}\n",
    "binary": bytes(range(256)),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "UTF-16": SMALL.encode("utf-16"),
    "latin-1": SMALL.encode() + b"# caf\xe9\n",
    "a list": "- 1\n- 2\n",
    "a word": "digits\n",
    "tab indent": "data:\n\tsource: sklearn:wine\n",
    "unclosed bracket": changed(("or: 0}\n  l2", "or: 0\n  l2")),
    "unclosed brace at the end": "data: {source: sklearn:wine\n",
    "unclosed quote": "data: {source: 'sklearn:wine}\nseed: 1\n",
    "wrong indent": "data:\n  source: sklearn:wine\n kind: table\n",
    "two documents": with_line("---\nseed: 1"),
    "duplicate key": with_line("seed: 4"),
    "duplicate section": with_line("model: {depth: 3}"),
    "one name with two kinds": width("{low: 4, high: 12, choices: [4, 8]}"),
    "a range from a number to a word": width("{low: 4, high: many}"),
    "unknown section": with_line("regularisation: {l1: 0}"),
    "unknown key": changed(("dropout", "dropuot")),
    "a key of another section": changed(("training: {", "training: {dropout: 0.1, ")),
    "a key by its common name": changed(("learning_rate: {low: 3e-3, high: 3e-2, log: true}", "lr: 1e-4")),
    "keys by their common names": with_line("batch_size: 8\nweight_decay: 0.1\ndevice: cuda\ndirection: minimize"),
    "a word where a number belongs": changed(("{low: 3e-3, high: 3e-2, log: true}", "fast")),
    "no and on are words": with_line("search: {first_trials: no}\nscore: {metric: on}"),
    "low above high": width("{low: 12, high: 4}"),
    "log from 0": changed(("low: 1e-3", "low: 0")),
    "log from below 0": with_line("model: {}").replace(f"width: {WIDTH}", "options: {a: {low: -1, high: 1, log: true}}")
    .replace("model: {}\n", ""),
    "infinite bound": changed(("high: 0.5}", "high: .inf}")),
    "nan bound": changed(("low: 0.0, high: 0.5}", "low: .nan, high: 0.5}")),
    "no choices": width("{choices: []}"),
    "choices that are a word": width("{choices: 16}"),
    "nested choices": width("{choices: [[4, 8], 12]}"),
    "a list without choices": width("[4, 8]"),
    "step 0": width("{low: 4, high: 12, step: 0}"),
    "step below 0": width("{low: 4, high: 12, step: -2}"),
    "step longer than the range": width("{low: 4, high: 12, step: 99}"),
    "a step and log": width("{low: 4, high: 12, step: 2, log: true}"),
    "bound beyond int64": width(f"{{low: 4, high: {2**70}}}"),
    "bound beyond the key": changed(("dropout: {low: 0.0, high: 0.5}", "dropout: {low: 0.0, high: 1.0}")),
    "or within the range": changed(("or: 0}\n  l2", "or: 0.01}\n  l2")),
    "condition on an unknown name": width("{low: 4, high: 12, when: {model.famly: mlp}}"),
    "condition without its section": width("{low: 4, high: 12, when: {family: mlp}}"),
    "condition that is never true": width("{low: 4, high: 12, when: {model.depth: 7}}"),
    "conditions in a circle": changed(
        (WIDTH, "{low: 4, high: 12, when: {model.depth: 1}}"),
        ("depth: {low: 1, high: 2}", "depth: {low: 1, high: 2, when: {model.width: 4}}"),
    ),
    "python tag": with_line("search: !!python/object/apply:os.system ['true']"),
    "study name with a slash": changed(("study: small", "study: ../small")),
    "study name with a space": changed(("study: small", "study: my study")),
    "study name with NUL": changed(("study: small", 'study: "a\\0b"')),
    "study name with an escape": changed(("study: small", 'study: "\\e[31mred"')),
    "NUL in the text": changed(("study: small", "study: a\0b")),
    "option name with a dash": width("8, options: {my-key: 3}"),
    "nested deeper than 50": "a: " * 1 + "{a: " * 60 + "1" + "}" * 60 + "\n",
    "alias bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "alias of nothing": with_line("search: *here"),
    "merged keys": "base: &b {seed: 1}\n<<: *b\ndata: {source: sklearn:wine}\n",
    "over a megabyte": SMALL + "#" * 2_000_000,
    "many problems": replaced(
        SMALL, ("dropout", "dropuot"), ("seed: 3", "seed: x"), (WIDTH, "{low: 9, high: 2}"),
        ("trials: 3", "trials: -3"),
    ),
}  # fmt: skip

SETTINGS: dict[str, str] = {
    "unknown sampler": with_line("search: {sampler: tpo}"),
    "unknown metric": with_line("score: {metric: acuracy}"),
    "metric of the other task": with_line("score: {metric: r2}"),
    "unknown form of score": with_line("score: {form: penalti}"),
    "unknown direction": with_line("direction: maximise"),
    "unknown family": changed(("model: {", "model: {family: mpl, ")),
    "a family for other data": changed(("model: {", "model: {family: cnn, ")),
    "own code by a dotted path": changed(("model: {", "model: {family: my.nets.make, ")),
    "trials below 0": changed(("trials: 3", "trials: -3")),
    "trials of a fraction": changed(("trials: 3", "trials: 2.5")),
    "timeout below 0": changed(("trials: 3", "trials: 3, timeout: -5")),
    "timeout of 0": changed(("trials: 3", "trials: 3, timeout: 0")),
    "timeout as on a clock": changed(("trials: 3", "trials: 3, timeout: 1:30")),
    "timeout in another unit": changed(("trials: 3", "trials: 3, timeout: 10min")),
    "no workers": changed(("trials: 3", "trials: 3, workers: 0")),
    "workers below 0": changed(("trials: 3", "trials: 3, workers: -1")),
    "10,000 workers": changed(("trials: 3", "trials: 3, workers: 10000")),
    "warm-up longer than the training": changed(("training: {", "training: {warmup: 5, ")),
    "no epochs": changed(("epochs: {low: 2, high: 4}", "epochs: 0")),
    "seed below 0": changed(("seed: 3", "seed: -1")),
    "seed of 2**70": changed(("seed: 3", f"seed: {2**70}")),
    "seed of letters": changed(("seed: 3", "seed: abc")),
    "cuda": with_line("device: cuda"),
    "no data": replaced(SMALL, ("data: {source: sklearn:wine}\n", "")),
    "unknown bundled set": changed(("sklearn:wine", "sklearn:whine")),
    "parts that leave nothing": changed(("sklearn:wine", "sklearn:wine, split: {val: 0.6, test: 0.5}")),
    "one fold": changed(("sklearn:wine", "sklearn:wine, split: {folds: 1}")),
    "a key for other data": with_line("augmentation: {flip: both}").replace("augmentation: {strength", "#"),
    "batches of one with batch normalization": changed(
        ("model: {", "model: {normalization: batch, "), ("training: {", "training: {batch_size: 1, ")
    ),
    "a point outside the space": with_line("search: {enqueue: [{model.width: 99}]}"),
    "a point that isn't searched": with_line("search: {enqueue: [{model.widht: 8}]}"),
}

NOTED: dict[str, Content] = {
    "low equals high": width("{low: 8, high: 8}"),
    "a byte order mark, Windows' line ends, 1e-4": b"\xef\xbb\xbf"
    + changed(("{low: 3e-3, high: 3e-2, log: true}", "1e-4")).replace("\n", "\r\n").encode(),
    "a step that misses high": width("{low: 4, high: 12, step: 3}"),
    "a key that its family doesn't have": width("8, kernel: {low: 3, high: 5}"),
    "a condition that no fixed value meets": width("{low: 4, high: 12, when: {model.normalization: batch}}"),
}

CASES = {
    **{f"space: {name}": Case(2, ("run", "bad.yaml"), {"bad.yaml": content}) for name, content in FILES.items()},
    "settings: own code that isn't there": Case(
        5, ("run", "bad.yaml"), {"bad.yaml": changed(("model: {", "model: {family: my_nets:make, "))}
    ),
    "space: missing": Case(2, ("run", "missing.yaml"), {}),
    "space: missing, with one like it": Case(2, ("run", "smal.yaml"), {"small.yaml": SMALL}),
    "space: missing, in a folder that isn't there": Case(2, ("run", "spaces/small.yaml"), {}),
    "space: the data in its place": Case(2, ("run", "my.csv"), {"my.csv": "a,b\n1,2\n"}),
    **{f"settings: {name}": Case(2, ("run", "bad.yaml"), {"bad.yaml": text}) for name, text in SETTINGS.items()},
    **{
        f"noted: {name}": Case(0, ("check", "good.yaml", "--trials", "0"), {"good.yaml": content})
        for name, content in NOTED.items()
    },
}
