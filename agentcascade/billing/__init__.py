"""Billing: the one door to every chat model, where a call is reserved, watched, billed and settled."""
