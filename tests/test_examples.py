"""The examples do what they say: each space file runs with the code beside it, each script stops and says why."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

from tuner.grammar import read_space
from tuner.space import own_data, own_names
from tuner.tuning import tune

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SPACES = sorted(EXAMPLES.glob("*.yaml"))
SCRIPTS = sorted(EXAMPLES.glob("stop_*.py"))
FRAMEWORKS = ("lightning", "transformers", "skorch", "keras")
pytestmark = pytest.mark.slow


@pytest.fixture
def needed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    path: Path = request.param
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    for name in FRAMEWORKS:
        if name in path.stem:
            pytest.importorskip(name, reason="the extra isn't installed")
    return path


@pytest.mark.filterwarnings("default")  # those of the frameworks are theirs
@pytest.mark.parametrize("needed", SPACES, indirect=True, ids=lambda path: path.stem)
def test_a_space_runs_with_the_code_beside_it(needed: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    space = read_space(tmp_path / "examples" / needed.name)
    named = [*own_data(space), *(name for names in own_names(space).values() for name in names)]
    assert named, "an example of one's own code names some"
    study = tune(space, trials=2, confirm=False, studies_dir=tmp_path / "studies", overrides={"training.epochs": 4})
    document = study.document
    assert (document["trials"]["failed"], document["trials"]["total"]) == (0, 2)
    assert (document["test"] is None) == (space.config.data.source == "loop")
    assert document["model"] is not None


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("needed", SCRIPTS, indirect=True, ids=lambda path: path.stem)
def test_a_script_stops_and_says_why(
    needed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(needed), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"^stopped at epoch \d+, kept epoch \d+: ", said, re.MULTILINE), said


def test_each_example_is_told_of() -> None:
    text = (EXAMPLES / "README.md").read_text()
    told = set(re.findall(r"`(\w+\.(?:yaml|py))`", text))
    assert told == {path.name for path in (*SPACES, *SCRIPTS)}
