"""Turbulence: Hasegawa–Wakatani drift waves, and corrections of coarse runs learned from fine runs."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "turbulence", __name__, number=2, algorithm=1, help="Hasegawa–Wakatani turbulence, learned corrections.",
    makers={name: f"{__name__}.{module}:remake" for name, module in (
        ("simulate", "simulate"), ("coarsen", "coarsen"), ("corrections", "corrections"),
    )},
)  # fmt: skip
