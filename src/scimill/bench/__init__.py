"""Datasets for storage benchmarks: made, scaled, checked and compared at the speed of the disk."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "bench", __name__, number=3, algorithm=1,
    help="Storage benchmarks: datasets of an exact size, scaled and compared.",
    artifacts=(f"{__name__}.dataset.artifact:DatasetArtifact",),
    makers={"generate": f"{__name__}.generate:remake"},
)  # fmt: skip
