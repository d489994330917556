"""Ranks: who does what, with which random numbers, and how the job starts, reports and ends."""
