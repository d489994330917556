"""Pendulums released from rest: a campaign outside scimill."""

from scimill.campaign import Campaign

CAMPAIGN = Campaign("pendulum", __name__, number=70_001, algorithm=1, help="Pendulums: their angle by a nonlinear ODE.")
