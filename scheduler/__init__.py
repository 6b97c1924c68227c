"""Lets work out: ticks the clock, releases, promotes, takes back what was lost."""
