"""The documentation as a site: sphinx-build -W -c docs . site. It needs no network, and neither do its pages."""

from typing import Any

project = "scimill"
author = "the authors of scimill"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/*.md", "docs/reference/*.md", "benchmarks/README.md", "containers/README.md"]
root_doc = "README"
myst_heading_anchors = 4
html_theme = "furo"
html_title = "scimill"
html_extra_path = ["index.html"]

CONTENTS = """

```{toctree}
:hidden:
:caption: Campaigns
docs/droplets
docs/droplets-in-models
docs/droplets-physics
docs/droplets-files
docs/turbulence
docs/bench
docs/atoms
docs/sky
```
```{toctree}
:hidden:
:caption: Guides
docs/installing
docs/training
docs/clusters
containers/README
docs/format
docs/extending
```
```{toctree}
:hidden:
:caption: Reference
:glob:
docs/reference/*
```
```{toctree}
:hidden:
:caption: Project
docs/architecture
benchmarks/README
CONTRIBUTING
CHANGELOG
```
"""


def add_contents(_app: Any, page: str, source: list[str]) -> None:
    """Give the README, which is read on its own too, the table of contents of the site."""
    if page == root_doc:
        source[0] += CONTENTS


def setup(app: Any) -> None:
    """Connect to the builder."""
    app.connect("source-read", add_contents)
