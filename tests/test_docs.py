"""The documentation: its commands run in their order, its notebook runs, its reference is what the code says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import SMALL, write

from tuner import tune
from tuner.showing import study_text

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TUNER = Path(sys.executable).with_name("tuner")


@pytest.mark.slow
def test_the_tutorial_goes_from_a_table_to_predictions(tmp_path: Path) -> None:
    ran = 0
    for kind, text in BLOCK.findall((DOCS / "tutorial.md").read_text()):
        for line in [text] if kind == "python" else text.strip().splitlines():
            if line.startswith("source "):
                continue
            words = [sys.executable, "-W", "error", "-c", line] if kind == "python" else [TUNER, *line.split()[1:]]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran += kind == "bash"
    assert ran == 4, "four commands, as it says"
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 70
    assert (tmp_path / "studies" / "tumours" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the warnings of Jupyter's own packages
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    from make_notebook import NOTEBOOK, executed

    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    cells = executed(NOTEBOOK, tmp_path).cells
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    html = " ".join(data.get("text/html", "") for data in shown)
    assert "Study breast-cancer" in html
    assert "<table" in html
    assert any("application/vnd.plotly.v1+json" in data for data in shown)


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, DOCS / "make_reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_test_that_the_documentation_names_is_there() -> None:
    named = [
        name for page in DOCS.glob("*.md") for name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    ]
    assert named
    assert not [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_how_tos_name_no_key_and_no_command_that_isnt_there() -> None:
    from tuner.config import RunConfig

    source = (ROOT / "tuner" / "cli.py").read_text()
    commands = {pair[0] or pair[1] for pair in re.findall(r"@app\.command\((?:\"(\w+)\")?\)\ndef (\w+)", source)}
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        assert set(re.findall(r"^tuner (\w+)", text, re.MULTILINE)) <= commands, page.name
        for section, key in re.findall(r"`(\w+)\.(\w+)", text):
            if section in RunConfig.model_fields and page.name != "reference.md":
                fields = RunConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
                assert key in fields, f"{page.name}: {section}.{key}"


def test_the_run_that_the_readme_quotes_has_what_a_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = next(text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "text")
    monkeypatch.chdir(tmp_path)
    study = tune(write(tmp_path / "small.yaml", SMALL.replace("confirm: false", "confirm: true")), trials=4)
    said = "\n".join(study_text(study.document))

    def heads(text: str) -> set[str]:
        """Return what stands at the beginnings of lines and over the columns of figures, but not the figures."""
        found = {line.split("  ")[0] for line in text.splitlines() if re.match(r"[a-z][a-zA-Z ]+  ", line)}
        return found | set(re.split(r"  +", next(line for line in text.splitlines() if " baseline val" in line)))

    assert heads(said) - heads(quoted) - {"classes (test)"} == set()
