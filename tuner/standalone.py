"""A best configuration -> a Python file that has all it takes to use its model, so that it runs where tuner isn't.

Decides which of tuner's own definitions belong into it, what is said at its top, and how it is used. What is in it is
the very code that trained the network, so it computes the very same. Knows no study and no file but the one it makes.
"""

from __future__ import annotations

import math
import pprint
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from textwrap import wrap
from typing import Any

from tuner.backbones import find_backbone
from tuner.best import MODEL, BestConfig
from tuner.bundling import Bundle, Import, Name, bundle
from tuner.config import FAMILIES, PRETRAINED
from tuner.data.splits import Shape
from tuner.errors import UsageError
from tuner.identity import this_version

LINE = 116
NAME = "tuned_model.py"  # no name that a module of the user's own is likely to have
BACKBONE = "backbone"  # with the ending that the file has
SECTIONS = ("model", "regularization", "augmentation", "training")
INSTEAD = {
    Name("tuner.config", "RunConfig"): "SimpleNamespace",
    Name("tuner.backbones", "Backbone"): "SimpleNamespace",
    Name("tuner.backbones", "find_backbone"): "find_backbone",
}
OURS = (
    "CONFIG", "HERE", "CLASSES", "Section", "encoder", "encode", "find_backbone", "check_unfrozen", "build_model",
    "load_model", "predict", "predict_proba",
)  # fmt: skip
IMPORTS = (
    Import("json", None, "json"), Import("functools", "cache", "cache"), Import("pathlib", "Path", "Path"),
    Import("types", "SimpleNamespace", "SimpleNamespace"), Import("typing", "Any", "Any"),
    Import("numpy", None, "np"), Import("torch", None, "torch"), Import("torch", "nn", "nn"),
    Import("safetensors.torch", "load_file", "load_file"), Import("importlib", "import_module", "import_module"),
)  # fmt: skip
ENCODERS = {kind: Name(f"tuner.data.{kind}", "read_encoder") for kind in ("table", "image", "text", "sequence")}
PREDICT, PREPARE = Name("tuner.measuring", "predict"), Name("tuner.measuring", "input_of")
CONFIGURATION = '''
class Section(SimpleNamespace):
    """A configuration, or a part of one: config.model.width, or config["model.width"]."""

    def __getitem__(self, name: str) -> Any:
        found: Any = self
        for part in name.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        return found
'''
ENCODER = '''
@cache
def encoder() -> Any:
    """Return the preprocessing, as fitted on the training rows."""
    return {read}(json.loads((HERE / "best.json").read_text(encoding="utf-8"))["encoder"])


def encode(examples: Any) -> np.ndarray:
    """Return examples as the network takes them, standardized; an ONNX file takes what `encoder().encode` returns."""
    stored = torch.from_numpy(encoder().encode(examples))
    return {prepare}(encoder().standard)(stored).contiguous().numpy()
'''
BACKBONE_LINES = '''
def check_unfrozen(_: int) -> None:
    """Say nothing: as many blocks are trained as were."""


def find_backbone(*_: Any) -> SimpleNamespace:
    """Return the network that this one starts from: {said}."""
    settings = {settings}
    return SimpleNamespace(
        name={name!r}, weights=HERE / {file!r}, blocks={blocks}, settings=settings, check_unfrozen=check_unfrozen
    )
'''
BUILD = '''
def build_model() -> nn.Module:
    """Return the network untrained, (n, *inputs) -> (n, outputs): logits, or one standardized number."""
    {network}
'''
LOAD = '''
@cache
def load_model() -> nn.Module:
    """Return the trained network, in eval mode."""
    network = build_model()
    network.load_state_dict(load_file(HERE / "{model}"))
    return network.eval()
'''
CLASSES = (
    '''
def predict_proba(examples: Any) -> np.ndarray:
    """Return the probabilities (n, classes), in the order of CLASSES."""
    return np.exp({run}(load_model(), encoder().encode(examples), encoder().standard, {task!r}))
''',
    '''
def predict(examples: Any) -> np.ndarray:
    """Return the names of the predicted classes (n,)."""
    return np.array(CLASSES)[predict_proba(examples).argmax(1)]
''',
)
NUMBERS = (
    '''
def predict(examples: Any) -> np.ndarray:
    """Return the predicted numbers (n,), in the target's unit."""
    outputs = {run}(load_model(), encoder().encode(examples), encoder().standard, {task!r})
    return encoder().target.restore(outputs[:, 0])
''',
)


def standalone(best: BestConfig, backbone: str = "") -> tuple[str, str]:
    """Return the text of a Python file that builds, loads and uses the model of a best configuration without tuner, and
    what its function is called that runs a network on stored examples.

    Beside it have to lie best.json, the weights and, for a pretrained network, the file `backbone` of the weights it
    starts from. A family of the user's own is imported from where it is.

    Raises:
        UsageError: nothing is known of the data, which a training loop of the user's own brings.
    """
    shape = best.encoder.shape
    if shape.kind not in ENCODERS:
        raise UsageError(
            f"{best.path}: its training loop brings its own data; only the loop knows what its model takes"
        )
    family, parts = best.config.model.family, [ENCODERS[shape.kind], PREDICT, PREPARE]
    if family == PRETRAINED:
        parts.append(Name("tuner.models.pretrained", "pretrained"))
    elif family in FAMILIES:
        parts.append(Name(f"tuner.models.{family}", family))
    code = bundle(parts, INSTEAD, OURS, IMPORTS)
    blocks = [_head(best, shape, code) + code.text, _config(best), *_use(best, shape, code, backbone)]
    return "\n\n\n".join(block.strip("\n") for block in blocks) + "\n", code.names[PREDICT]


def _head(best: BestConfig, shape: Shape, code: Bundle) -> str:
    metric = best.about["metric"]
    figures = [f"validation {best.val[metric]:.4g}"] if best.val.get(metric) is not None else []
    if best.test and best.test.get(metric):
        figures.append("test {value:.4g} (95 % interval {low:.4g} to {high:.4g})".format(**best.test[metric]))
    returned = "the predicted numbers (n,)" if shape.task == "regression" else "the names of the predicted classes (n,)"
    chances = "    tuned_model.predict_proba(examples)  # their probabilities (n, classes)"
    said = [
        f"The model of study {best.study}, trial {best.trial}: how examples become numbers, its network, its use.",
        "",
        *wrap(f"Made by tuner {this_version()} with {', '.join(_needed(code))}; it needs these, and no tuner.", LINE),
        f"Beside this file lie best.json and {MODEL}.",
        *([f"{metric}: {', '.join(figures)}."] if figures else []),
        "",
        "    import tuned_model",
        f"    tuned_model.predict(examples)  # {returned}",
        *([] if shape.task == "regression" else [chances]),
        "    tuned_model.load_model()   # the trained network in eval mode, for what tuned_model.encode() returns",
        "    tuned_model.build_model()  # the same untrained, for a training loop of your own",
        "",
        f"Examples are {_examples(best, shape)}.",
    ]
    text = "\n".join(map(_plain, said))
    return f'"""{text}\n"""\n\nfrom __future__ import annotations\n\n'


def _plain(text: str) -> str:
    """Return a text as it may stand in a docstring: best.json may come from anyone."""
    return "".join(each if each.isprintable() else "?" for each in text).replace("\\", "\\\\").replace('"', "'")


def _needed(code: Bundle) -> list[str]:
    """Return the distributions that a text needs, with the versions here."""
    names, found = packages_distributions(), {}
    for package in {*code.packages, "safetensors", "numpy"}:
        for name in names.get(package, ()):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
    return [f"{name} {found[name]}" for name in sorted(found, key=str.lower)]


def _examples(best: BestConfig, shape: Shape) -> str:
    match shape.kind:
        case "table":
            return "a pandas.DataFrame with the columns of the training data, or an array of these columns in order"
        case "image":
            size = " x ".join(map(str, shape.input))
            return f"pictures as an array (n, channels, height, width) or (n, height, width, channels), here {size}"
        case "text":
            return f"a list of texts, or a pandas.DataFrame with the column {best.about['encoder']['column']!r}"
        case _:
            return "an array (n, steps, channels), a list of arrays (steps, channels), or a table like that of training"


def _config(best: BestConfig) -> str:
    """Return the lines that hold the configuration: of a family of tuner's, what its network is made by."""
    document = best.config.model_dump(mode="json")
    own = best.config.model.family not in FAMILIES
    tree = document if own else {name: document[name] for name in SECTIONS}
    lines = [f"# --- this model: {best.study}, trial {best.trial}", "", "HERE = Path(__file__).resolve().parent"]
    lines += [f"CLASSES = {pprint.pformat(best.classes, width=110, compact=True)}"] if best.classes else []
    made = CONFIGURATION if own else "Section = SimpleNamespace\n"
    return "\n".join([*lines, "", "", made.strip("\n"), "", "", f"CONFIG = {_section(tree)}"])


def _section(tree: Mapping[str, Any], depth: int = 0) -> str:
    """Return a section of a configuration as code; options of a family of the user's own stay a mapping."""
    margin, lines = "    " * (depth + 1), list[str]()
    for name, value in tree.items():
        nested = isinstance(value, dict) and name != "options"
        lines.append(f"{margin}{name}={_section(value, depth + 1) if nested else _value(value)},")
    return "\n".join(["Section(", *lines, f"{'    ' * depth})"])


def _value(value: Any) -> str:
    """Return a value as code, also one that isn't finite, of which Python has no word."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(name)}: {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _use(best: BestConfig, shape: Shape, code: Bundle, backbone: str) -> list[str]:
    """Return the functions that use what was copied."""
    blocks = [ENCODER.format(read=code.names[ENCODERS[shape.kind]], prepare=code.names[PREPARE])]
    if best.config.model.family == PRETRAINED:
        blocks.append(_backbone(best, shape, backbone))
    build = BUILD.format(network=_network(best, code))
    use = NUMBERS if shape.task == "regression" else CLASSES
    run = code.names[PREDICT]
    return [*blocks, build, LOAD.format(model=MODEL), *(each.format(run=run, task=shape.task) for each in use)]


def _network(best: BestConfig, code: Bundle) -> str:
    """Return the lines that build the network."""
    family = best.config.model.family
    if family == PRETRAINED:
        made = code.names[Name("tuner.models.pretrained", "pretrained")]
        return f"return {made}(CONFIG, encoder().shape, HERE, encoder().standard)"
    if family in FAMILIES:
        return f"return {code.names[Name(f'tuner.models.{family}', family)]}(CONFIG, encoder().shape)"
    module, _, attribute = family.partition(":")
    lines = [
        "# your own code, which has to be where Python finds it",
        f"factory = getattr(import_module({module!r}), {attribute!r})",
        "return factory(CONFIG, encoder().shape)",
    ]
    return "\n    ".join(lines)


def _backbone(best: BestConfig, shape: Shape, file: str) -> str:
    """Return the lines that say where the weights lie that a pretrained network starts from."""
    found = find_backbone(best.config.model.backbone, shape.kind, best.folder)
    return BACKBONE_LINES.format(
        name=found.name,
        said=_plain(found.name),
        file=file,
        blocks=found.blocks,
        settings=pprint.pformat(dict(found.settings), width=100),
    )
