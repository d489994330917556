"""What the benchmarks share: goals that are met or not, and the machine that they were measured on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from scimill.doctor import model_and_vectors


@dataclasses.dataclass(frozen=True)
class Goal:
    """A measured value and the least, or the most, that it should be."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value is what it should be."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        sign, limit = (">=", self.least) if self.least is not None else ("<=", self.most)
        return f"{'PASS' if self.met else 'FAIL'}  {self.name}: {self.value:,.4g} ({sign} {limit:,g})"


def machine() -> str:
    """Processor and vector extension, for the head of a table."""
    model, vectors = model_and_vectors()
    return f"{model}, {vectors or 'no wide vectors'}"


def conclude(goals: list[Goal], results: dict[str, Any], file: Path | None) -> int:
    """Print the goals, write all results to a JSON file if one is wanted; return the exit code."""
    print("\n" + "\n".join(map(str, goals)))
    if file:
        verdicts = [dataclasses.asdict(goal) | {"met": goal.met} for goal in goals]
        file.write_text(json.dumps({"machine": machine(), "goals": verdicts, **results}, indent=2) + "\n")
    return 0 if all(goal.met for goal in goals) else 1
