"""Installed campaigns: which are refused, that they break nothing else, and the cost of finding them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scimill.plugins import installed

GOOD = 'from scimill.campaign import Campaign\nCAMPAIGN = Campaign("{name}", __name__, {number}, 1, "Another.")\n'


def install(folder: Path, package: str, name: str, text: str) -> None:
    """Write the files that pip would install for a package with one campaign."""
    module = package.replace("-", "_")
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(text, "utf-8")
    about = folder / f"{module}-2.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n", "utf-8")
    (about / "entry_points.txt").write_text(f"[scimill.campaigns]\n{name} = {module}:CAMPAIGN\n", "utf-8")


def scimill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "scimill", *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)


def refusal(folder: Path, name: str) -> str:
    """Return the error that refuses its command."""
    result = scimill(folder, name, "generate", "x.h5")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 4
    return result.stderr


def test_the_shipped_campaigns_are_found_in_the_order_of_their_numbers():
    names = [name for name, plugin in installed().items() if plugin.is_own]
    assert names == ["droplets", "turbulence", "bench", "atoms", "sky"]


def test_a_campaign_that_cannot_be_imported_breaks_only_its_own_commands(tmp_path):
    install(tmp_path, "tides-package", "tides", "import nosuchmodule")
    assert "tides-package 2.1" in refusal(tmp_path, "tides")
    assert "nosuchmodule" in refusal(tmp_path, "tides")
    listed = scimill(tmp_path, "--help")
    assert listed.returncode == 0
    assert "tides" in listed.stdout
    assert "tides (tides-package 2.1)" in scimill(tmp_path, "doctor", str(tmp_path)).stdout
    assert scimill(tmp_path, "droplets", "generate", "x.h5", "--count", "1", "--print-config").returncode == 0


def test_commands_that_cannot_be_imported_are_named(tmp_path):
    install(tmp_path, "tides-package", "tides", GOOD.format(name="tides", number=70_000))
    assert "tides_package.commands" in refusal(tmp_path, "tides")


@pytest.mark.parametrize(
    ("second", "number", "shared"),
    [("tides", 70_002, "the name tides"), ("waves", 70_001, "the stream number 70001")],
)
def test_two_campaigns_of_one_name_or_number_are_refused_with_both_packages(second, number, shared, tmp_path):
    install(tmp_path, "first-package", "tides", GOOD.format(name="tides", number=70_001))
    install(tmp_path, "second-package", second, GOOD.format(name=second, number=number))
    for name in {"tides", second}:
        message = refusal(tmp_path, name)
        assert "first-package 2.1 and second-package 2.1" in message
        assert shared in message


def test_a_number_that_belongs_to_scimill_is_refused(tmp_path):
    install(tmp_path, "tides-package", "tides", GOOD.format(name="tides", number=1))
    assert "stream number is 1; allowed: whole numbers from 65536" in refusal(tmp_path, "tides")


def test_an_entry_point_of_another_name_or_kind_is_refused(tmp_path):
    install(tmp_path, "tides-package", "tides", GOOD.format(name="waves", number=70_000))
    install(tmp_path, "winds-package", "winds", "CAMPAIGN = 5")
    for name in ("tides", "winds"):
        assert f"entry point {name} must name a scimill.campaign.Campaign of the same name" in refusal(tmp_path, name)


def test_help_loads_nothing_heavy_with_ten_campaigns(tmp_path):
    for number in range(10):
        install(tmp_path, f"package-{number}", f"c{number}", GOOD.format(name=f"c{number}", number=70_000 + number))
    program = (
        "import sys\nfrom scimill.cli import scimill\nscimill.main(['--help'], standalone_mode=False)\n"
        "print(sorted({'numpy', 'h5py', 'mpi4py', 'torch', 'numba', 'scipy'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    shown = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
    assert "c9" in shown
    assert shown.splitlines()[-1] == "[]"
