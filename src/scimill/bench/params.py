"""Parameters of the benchmark commands."""

from typing import Literal

from pydantic.dataclasses import dataclass

from scimill.config import STRICT, Switch, parameter

# ---- similarity and traces --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Operations:
    """Operations."""

    only: str = parameter(
        "*", "keep operations on files whose path matches this pattern, such as '/data/*'", min_length=1
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimilarityConfig(Operations):
    """Comparison."""

    time_unit: Literal["ns", "us", "ms", "s"] = parameter("ns", "unit of start and end in a CSV trace")
    time: Switch = parameter(True, "compare gaps and durations too; without them a faster disk makes no difference")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TraceConfig(Operations):
    """`scimill bench trace`."""
