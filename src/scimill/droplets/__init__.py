"""Droplets: radius and temperature of random Lagrangian cloud droplets, integrated exactly."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "droplets", __name__, number=1, algorithm=1, help="Cloud droplets: radius and temperature by stiff ODEs.",
    makers={"generate": f"{__name__}.generate:remake", "import-data": f"{__name__}.exchange.records:remake"},
)  # fmt: skip
