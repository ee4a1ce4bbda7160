"""Routers: of steps (`step`: who takes this one), of tiers (`tier`: what a memory module may cost), and their `tuning`.

``from agentcascade.routers import ppo``, without the family, is deprecated.
"""

from agentcascade.deprecation import moved_names

_FAMILIES = {
    "step": "consistency drift drift_guard scores",
    "tier": "bandits baselines checkpoints fitted_q log log_import network off_policy outcome_table policy ppo replay "
    "values",
}
__getattr__ = moved_names(
    __name__,
    {name: f"{__name__}.{family}.{name}" for family, names in _FAMILIES.items() for name in names.split()},
    since="0.1",
    removed_in="1.0",
)
