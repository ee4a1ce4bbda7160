"""Judging of stored episodes: those without an outcome, and checks of a judge on episodes whose outcome is known."""
