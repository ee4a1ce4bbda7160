"""The log of steps that both models saw: what tuning learns from, however it was made."""
