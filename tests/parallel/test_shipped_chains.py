"""The shipped chains run as they stand, only smaller, and a second run finds every step complete."""

from pathlib import Path

import pytest
import yaml

from mpi import Result, quick_path, scimill

CHAINS = Path(__file__).parents[2] / "jobs/chains"
SMALLER = {
    "droplets": {"4e6": "2e5", "1e5": "1e4", "--epochs 6": "--epochs 1"},
    "turbulence": {
        "--interval 40": "--interval 1", "--snapshots 120": "--snapshots 16", "--epochs 6": "--epochs 1",
        "--snapshots 60": "--snapshots 6", "--starts 8 --duration 2.6": "--starts 2 --duration 0.26",
    },
    "atoms": {"--count 300": "--count 120", "--epochs 40": "--epochs 2"},
    "sky": {"--frames 240": "--frames 80", "--epochs 12": "--epochs 1"},
}  # fmt: skip
"""What is replaced in the commands of each chain."""


def test_every_chain_is_run() -> None:
    assert set(SMALLER) == {path.stem for path in CHAINS.glob("*.yaml")} - {"turbulence-large"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SMALLER)
def test_a_second_run_finds_every_step_complete(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", quick_path())
    text = (CHAINS / f"{name}.yaml").read_text("utf-8")
    for before, after in SMALLER[name].items():
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "chain.yaml").write_text(text, "utf-8")
    first, second = (run(tmp_path) for _ in range(2))
    assert "already complete" not in first.stdout
    assert second.stdout.count("already complete") == len(yaml.safe_load(text)["steps"]), second


def run(folder: Path) -> Result:
    result = scimill("jobs", "run", "chain.yaml", cwd=folder, timeout=290)
    assert result.returncode == 0, result
    return result
