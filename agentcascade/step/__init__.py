"""One step of an agent: retrieve, sample, vote, accept or defer, record."""
