"""Atoms: a crash-proof database of atomic structures for active learning, after the design document of LANL's ALF."""

from typing import TYPE_CHECKING, Any

from scimill.campaign import Campaign

if TYPE_CHECKING:
    from scimill.atoms.database.database import Database

__all__ = ["CAMPAIGN", "Database"]

CAMPAIGN = Campaign(
    "atoms",
    __name__,
    number=4,
    algorithm=1,
    help="Atoms: a database of structures for active learning.",
    artifacts=(f"{__name__}.database.artifact:DatabaseArtifact",),
)


def __getattr__(name: str) -> Any:
    """Import the database when it is asked for, so that ``--help`` is quick."""
    if name != "Database":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scimill.atoms.database.database import Database

    return Database
