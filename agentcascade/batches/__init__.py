"""Batches: requests that can wait, sent by the providers' batch interfaces at their prices, resumed and billed."""
