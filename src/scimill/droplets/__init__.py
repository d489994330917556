"""Droplets: radius and temperature of random Lagrangian cloud droplets, by exact integration."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "droplets", __name__, number=1, algorithm=1, help="Cloud droplets: radius and temperature by stiff ODEs."
)
