"""Tier routers: which tier each memory module runs for a question; their training and off-policy evaluation."""
