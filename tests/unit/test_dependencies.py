"""The dependency rules of the design, checked against the imports of every module.

A module's place is its folder or, at the top level, its name; the parts of a campaign have their own places. The rules
are closed: a module with an unknown place fails, and so does an import that no rule names.
"""

import ast
import graphlib
import re
from collections import defaultdict
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import scimill

ROOT = Path(scimill.__file__).parent
CAMPAIGNS = tuple(point.name for point in entry_points(group="scimill.campaigns") if point.value.startswith("scimill."))
FOUNDATION = {
    "errors", "config", "claim", "files", "pictures", "options", "campaign", "plugins", "cli", "__main__", "doctor",
    "extras", "artifacts", "artifact_commands", "parallel", "store", "training", "jobs",
}  # fmt: skip
COMMON = {"claim", "files", "pictures", "parallel", "config", "errors"}
ALLOWED = {
    # place: places of scimill that it may import; every module may import the version
    "errors": set(),
    "config": {"errors"},
    "claim": {"parallel", "errors"},
    "files": {"parallel", "errors"},
    "pictures": {"files", "errors"},
    "parallel": {"parallel", "errors"},
    "": {"artifacts"},
    "version": set(),
    "store": {"store", "artifacts", "claim", "files", "parallel", "errors"},
    "campaign": {"store", "files", "parallel", "config", "errors"},
    "training": {"training", "artifacts", "campaign", "store", *COMMON},
    "options": {"config", "errors", "parallel", "store", "training"},
    "plugins": {"campaign", "errors"},
    "cli": {"options", "plugins", "errors"},
    "__main__": {"cli", "extras", "parallel", "errors"},
    "extras": {"errors"},
    "jobs": {"jobs", "claim", "files", "parallel", "config", "errors"},
    "doctor": {"plugins", "extras", "claim", "store", "parallel", "errors"},
    "artifacts": {"plugins", "store", "files", "parallel", "config", "errors"},
    "artifact_commands": {"artifacts", "options", "parallel", "errors"},
    "identity": {"campaign"},
    "kernel": {"kernel"},
    "params": {"identity", "params", "kernel", "training", "config", "errors"},
    "network": {"identity", "network", "kernel", "params", "training", "config", "errors"},
    "room": {"identity", "room", "params", "kernel", "network", "training", "artifacts", "campaign", "store", *COMMON},
}
"""The rooms of a campaign: identity (its package itself), kernel, params, network, and room for all others."""
NETWORKS = {"network", "vicreg", "backbones", "batchnorm"}
"""Modules of a campaign's learning that define networks."""
PARTS = {
    # (place, other place): the only modules of the other place that it may import
    ("training", "store"): {"store.checksums", "store.layout", "store.reader", "store.verify", "store.provenance"},
    ("params", "training"): {"training.params"},
    ("network", "training"): {"training.ranks", "training.threads"},
    ("artifacts", "store"): {"store.output"},
    ("jobs", "parallel"): {"parallel.report"},
}
CLICK = {"cli", "options", "plugins", "commands", "doctor", "artifact_commands"}
"""What faces the command line. Any folder's commands.py is glue: it may import the options beside what its folder may,
and commands that campaigns share (GLUE); that of jobs also the parser, with which it checks command lines."""

GLUE = {"training.commands", "artifact_commands"}

GUARDED = {
    # third-party package: places that may import it
    "mpi4py": {"parallel/world"},
    "h5py": {"store", "atoms/database/segments"},
    "h5netcdf": {"store"},
    "torch": {"training", "network"},
    "horovod": {"training", "network"},
    "pyfftw": {"turbulence/kernels/fourier"},
    "ase": {"room"},
    "click": CLICK,
}
KERNEL_PACKAGES = {"numpy", "scipy", "numba"}


def place(module: str) -> str:
    """Place of a module such as "droplets.kernels.lanes" in the rules; empty for the package itself."""
    folder, _, name = module.partition(".")
    if folder not in CAMPAIGNS:
        return folder
    room, _, inner = name.partition(".")
    if room in ("", "params"):
        return room or "identity"
    if room == "learning" and inner in NETWORKS:
        return "network"
    return "kernel" if room == "kernels" else "room"


def is_commands(module: str) -> bool:
    return module.endswith(".commands")


def imports(source: str, module: str, known: set[str]) -> set[str]:
    """Absolute names of all modules that a module imports, including in functions and by literal name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def absolute(node: ast.ImportFrom, module: str) -> str:
    """Name of the module that a from-import names, relative ones resolved."""
    above = ("scimill." + module).split(".")[: -node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def violations(source: str, module: str, known: set[str]) -> list[str]:
    """Describe the imports of a module that break the rules; one line each."""
    here = place(module)
    if here and here not in ALLOWED:
        return [f"{module}: has no place in the rules"]
    problems = []
    for name in sorted(imports(source, module, known)):
        top, _, inner = name.partition(".")
        fine = may_import(module, inner) if top == "scimill" else may_import_package(module, top)
        if not fine:
            problems.append(f"{module} imports {name}")
    return problems


def may_import(module: str, other: str) -> bool:
    """Whether a module of scimill may import another."""
    here, there = place(module), place(other)
    if there == "version":
        return True
    if is_commands(module) and (there in ("options", "cli"[: 3 * (here == "jobs")]) or other in GLUE):
        return True
    if there not in FOUNDATION and module.split(".")[0] != other.split(".")[0]:
        return False
    if (here, there) in PARTS:
        return other in PARTS[here, there]
    return there in ALLOWED.get(here, set()) and not is_commands(other)


def may_import_package(module: str, package: str) -> bool:
    """Whether a module may import a package that is not ours."""
    here = place(module)
    if here == "kernel":
        return package in KERNEL_PACKAGES | STANDARD or module.replace(".", "/") in GUARDED.get(package, ())
    here = "commands" if is_commands(module) else here
    return here in GUARDED.get(package, {here}) or module.replace(".", "/") in GUARDED[package]


STANDARD = {"math", "re", "fractions", "warnings", "typing", "collections", "functools", "dataclasses", "itertools"}
"""Standard modules allowed in a pure kernel: none that reads, writes or uses the clock."""


def modules() -> dict[str, Path]:
    """Every module of scimill by its name below the package."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    return {name.removesuffix("__init__").rstrip("."): path for name, path in sorted(paths.items())}


KNOWN = {f"scimill.{name}" for name in modules()} | {"scimill"}


@pytest.mark.parametrize("module", modules())
def test_module_keeps_the_dependency_rules(module):
    assert violations(modules()[module].read_text("utf-8"), module, KNOWN) == []


def graph() -> dict[str, set[str]]:
    """Modules that each module imports, including lazy imports."""
    found = {f"scimill.{name}".rstrip("."): path for name, path in modules().items()}
    return {
        name: imports(path.read_text("utf-8"), name.removeprefix("scimill."), KNOWN) & found.keys() - {name}
        for name, path in found.items()
    }


def test_no_modules_import_each_other_in_a_circle():
    try:
        graphlib.TopologicalSorter(graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_foundation_names_no_campaign():
    campaigns = re.compile(rf"\b({'|'.join(CAMPAIGNS)})\b")
    for name, path in modules().items():
        if name.split(".")[0] in FOUNDATION - {"extras"}:  # some extras are called like a campaign
            tree = ast.parse(path.read_text("utf-8"))
            words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            words |= {node.value for node in ast.walk(tree) if is_code_string(node)}
            assert not [word for word in words if campaigns.fullmatch(word)], name


def is_code_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_class_name_stands_twice():
    owners = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                owners[node.name].append(name)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("droplets.kernels.lanes", "import h5py"),
        ("droplets.kernels.lanes", "import os"),
        ("turbulence.kernels.spectral", "import pyfftw"),
        ("turbulence.kernels.slabs", "from scimill.parallel.world import World"),
        ("droplets.kernels.lanes", "from scimill.store import writer"),
        ("droplets.kernels.lanes", "from scimill.config import parameter"),
        ("droplets.kernels.lanes", "from scimill.droplets.params import GenerateConfig"),
        ("droplets.kernels.lanes", "from scimill.droplets import generate"),
        ("droplets.kernels.lanes", "from .. import generate"),
        ("droplets.kernels.lanes", "from ...store.layout import Layout"),
        ("droplets.kernels.lanes", "def f():\n    import matplotlib.pyplot"),
        ("droplets.generate", "import mpi4py.MPI"),
        ("droplets.generate", "from mpi4py import MPI"),
        ("droplets.generate", "import h5py"),
        ("droplets.generate", "import torch"),
        ("droplets.generate", "from scimill.turbulence import params"),
        ("droplets.generate", "from scimill import cli"),
        ("droplets.generate", "from scimill.droplets.commands import droplets"),
        ("droplets.generate", "import importlib\nimportlib.import_module('h5py')"),
        ("droplets.generate", "__import__('mpi4py')"),
        ("droplets.params", "from scimill.store.layout import Layout"),
        ("parallel.report", "from mpi4py import MPI"),
        ("parallel.report", "if TYPE_CHECKING:\n    from mpi4py import MPI"),
        ("parallel.world", "from scimill.store import reader"),
        ("parallel.world", "from scimill.config import Run"),
        ("store.writer", "from mpi4py import MPI"),
        ("store.writer", "from scimill.config import Run"),
        ("store.writer", "from scimill.droplets import generate"),
        ("store.writer", "from scimill.cli import scimill"),
        ("store.writer", "import click"),
        ("errors", "import scimill.config"),
        ("config", "import scimill.cli"),
        ("cli", "from scimill.droplets.commands import droplets"),
        ("doctor", "import h5py"),
        ("doctor", "from mpi4py import MPI"),
        ("jobs.render", "from scimill.parallel import world"),
        ("jobs.render", "import h5py"),
        ("training.engine", "from scimill.store import writer"),
        ("droplets.params", "from scimill.training import engine"),
        ("droplets.learning.train", "import torch"),
        ("training.engine", "from scimill.droplets.kernels import lanes"),
        ("training.data", "from scimill.droplets.learning import network"),
        ("surprise", "import math"),
    ],
)
def test_the_rules_catch_a_violation(module, source):
    known = KNOWN | {f"scimill.{name}" for name in ("turbulence", "turbulence.params", "jobs", "training")}
    assert violations(source, module, known)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "droplets.kernels.lanes",
            "import math\nimport numpy as np\nfrom numba import njit\nfrom scimill.droplets.kernels.physics import X",
        ),
        ("droplets.kernels.lanes", "from . import physics"),
        ("turbulence.kernels.fourier", "import pyfftw"),
        ("droplets.generate", "from scimill import config\nfrom scimill.store.writer import Output"),
        (
            "droplets.commands",
            "import click\nfrom scimill.options import configured\nfrom scimill.droplets import generate",
        ),
        ("parallel.world", "from mpi4py import MPI\nfrom scimill.errors import ConfigError"),
        ("store.hdf5", "import h5py\nfrom scimill.version import __version__"),
        ("store.commands", "import click\nfrom scimill.parallel.world import world"),
        (
            "training.data",
            "import torch\nfrom scimill.store.reader import Reader\nfrom scimill.campaign import Campaign",
        ),
        ("jobs.render", "import jinja2\nfrom scimill.config import Run"),
    ],
)
def test_the_rules_allow_what_they_should(module, source):
    known = KNOWN
    assert violations(source, module, known) == []
