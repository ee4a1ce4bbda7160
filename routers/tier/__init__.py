"""Routers of tiers: how much each memory module may cost for a question."""
