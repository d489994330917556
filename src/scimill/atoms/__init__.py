"""Atoms: a crash-proof database of structures for active learning, after the design of LANL's ALF."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "atoms",
    __name__,
    number=4,
    algorithm=1,
    help="Atoms: a database of structures for active learning.",
    artifacts=(f"{__name__}.database.artifact:DatabaseArtifact",),
)
