"""Droplets: radius and temperature of random Lagrangian cloud droplets, by exact integration."""
