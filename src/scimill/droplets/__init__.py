"""Droplets: radius and temperature of random Lagrangian cloud droplets, integrated exactly."""

from scimill.campaign import Campaign, Rate

CAMPAIGN = Campaign(
    "droplets", __name__, number=1, algorithm=1, help="Cloud droplets: radius and temperature by stiff ODEs.",
    makers={"generate": f"{__name__}.generate:remake", "import-data": f"{__name__}.exchange.records:remake"},
    # With AVX-512 at tolerance 1e-8; it measures 380 000 for a whole run on the machine of docs/droplets.md.
    rates={"generate": Rate(200_000, "droplets", "benchmarks/droplets.py")},
)  # fmt: skip
