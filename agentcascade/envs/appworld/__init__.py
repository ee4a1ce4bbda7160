"""AppWorld (Trivedi et al. 2024): agents that write code against the simulated apps of simulated people."""
