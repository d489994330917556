"""Sky: pairs of colour and thermal images of Sage nodes, and two networks that give both the same embedding."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign(
    "sky", __name__, number=5, algorithm=1, help="Sky: pairs of colour and thermal images of Sage nodes, VICReg."
)
