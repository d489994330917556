"""Names of the files in a run directory; apart from PyTorch, which takes seconds to load."""

from pathlib import Path

CONFIG, RUN, RESULT, LOCK = "config.yaml", "run.json", "result.json", "lock"
LAST, PREVIOUS, MODEL = "checkpoint.pt", "checkpoint-previous.pt", "model.pt"
METRICS, BOARD = "metrics.csv", "tensorboard"


def members_of(path: Path) -> list[Path]:
    """List the run directories of an ensemble's members, in the order of their numbers."""
    return sorted(path.glob("member-*"), key=lambda member: (len(member.name), member.name))
