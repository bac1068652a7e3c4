"""Run docs/notebook.ipynb and keep what it prints. Needs the packages of the extra `dev`.

python docs/make_notebook.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent / "notebook.ipynb"


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook as it is after its cells ran in a folder, in order; it raises what a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def main() -> None:
    """Run it in a folder that is thrown away, and write its outputs without times and figures' scripts."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(NOTEBOOK.parent.parent / "search_spaces", Path(folder) / "search_spaces")
        notebook = executed(NOTEBOOK, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        # what other packages complain of depends on what is installed
        outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        if cell.cell_type == "code":
            cell.outputs = outputs
        for output in outputs:
            # a figure is drawn again by whoever opens the notebook; its html would bring plotly along, 5 MB a figure
            data = output.get("data", {})
            if "application/vnd.plotly.v1+json" in data:
                data.pop("text/html", None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, NOTEBOOK)
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
