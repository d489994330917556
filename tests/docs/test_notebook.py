"""The notebook of the first look runs from its first cell to its last."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

from .pages import ROOT


def test_the_first_look_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs/first-look.ipynb", as_version=4)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": tmp_path}}).execute()
    text = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "Traceback" not in text
    assert "scimill: error" not in text  # a command that fails does not stop a notebook
    assert {"droplets.h5", "test.h5"} <= {path.name for path in tmp_path.iterdir()}
    assert sum("image/png" in str(cell.get("outputs", "")) for cell in notebook.cells) == 2
