"""What `import tuner` promises: its names, and how little it costs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command import write

import tuner

NAMES = [
    "BestConfig", "DataError", "OverfitPruner", "Run", "RunConfig", "SpaceError", "StorageError", "Study", "TunerError",
    "UsageError", "UserCodeError", "Watch", "__version__", "load_best", "open_study", "report", "tune",
]  # fmt: skip
HEAVY = ("torch", "sklearn", "optuna", "pandas", "sqlalchemy", "plotly", "numpy")


def test_the_public_names_are_these() -> None:
    assert sorted(tuner.__all__) == sorted(NAMES)
    assert sorted(dir(tuner)) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tuner, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tuna'"):
        tuner.tuna  # noqa: B018


def imported(code: str, cwd: Path) -> list[str]:
    """Return which heavy modules a fresh Python has imported after some code."""
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].split()


def main(*words: str) -> str:
    call = f"main({list(words)!r})"
    return f"from tuner.cli import main\ntry:\n    {call}\nexcept SystemExit as end:\n    assert not end.code"


@pytest.mark.parametrize(
    "code",
    ["import tuner", main("--help"), main("--version"), main("run", "--help"), main("schema")],
    ids=["import tuner", "--help", "--version", "run --help", "schema"],
)
def test_this_imports_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert imported(code, tmp_path) == []


def test_best_and_load_best_import_nothing_heavy(tmp_path: Path) -> None:
    tuner.tune(write(tmp_path / "small.yaml"), trials=1, studies_dir=tmp_path / "studies")
    assert imported(main("best", "small"), tmp_path) == []
    assert imported(main("best", "small", "--format", "python"), tmp_path) == []
    assert imported("import tuner\ntuner.load_best('small').params", tmp_path) == []


def test_help_answers_at_once(tmp_path: Path) -> None:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run([sys.executable, "-m", "tuner", "--help"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert spent() - before < 1.0  # seconds of this process's CPU, not of a clock that others share


def test_no_module_takes_the_place_of_a_public_name() -> None:
    modules = {path.stem for path in Path(tuner.__file__).parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not modules & set(tuner.__all__)
