"""Datasets for storage benchmarks: generate, scale, verify and compare them at the speed of the disk."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "bench", __name__, number=3, algorithm=1,
    help="Storage benchmarks: generate datasets of an exact size, scale and compare them.",
    artifacts=(f"{__name__}.dataset.artifact:DatasetArtifact",),
    makers={"generate": f"{__name__}.generate:remake"},
)  # fmt: skip
