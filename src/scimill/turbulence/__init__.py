"""Turbulence: Hasegawa–Wakatani drift waves, and corrections of coarse runs that are learned from fine ones."""
