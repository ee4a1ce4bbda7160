"""The data that flows between the parts: frozen, plain, without behaviour beyond reading itself.

Token counts are disjoint: a token is in exactly one class, so a bill is a dot product.
Dollars are `Decimal`; ``None`` dollars mean "price unknown", never zero.
"""

from __future__ import annotations

from agentcascade.types.base import DERIVED as DERIVED
from agentcascade.types.base import CacheUse as CacheUse
from agentcascade.types.base import Delta as Delta
from agentcascade.types.base import Frozen as Frozen
from agentcascade.types.base import Message as Message
from agentcascade.types.base import Mode as Mode
from agentcascade.types.base import Purpose as Purpose
from agentcascade.types.base import Role as Role
from agentcascade.types.base import Tool as Tool
from agentcascade.types.base import new_id as new_id
from agentcascade.types.base import now as now
from agentcascade.types.calls import Account as Account
from agentcascade.types.calls import Call as Call
from agentcascade.types.calls import Completion as Completion
from agentcascade.types.calls import Judgement as Judgement
from agentcascade.types.calls import Scope as Scope
from agentcascade.types.calls import Usage as Usage
from agentcascade.types.calls import total as total
from agentcascade.types.memory import MODULES as MODULES
from agentcascade.types.memory import TIERS as TIERS
from agentcascade.types.memory import ModuleName as ModuleName
from agentcascade.types.memory import ModuleRun as ModuleRun
from agentcascade.types.memory import Recall as Recall
from agentcascade.types.memory import Tier as Tier
from agentcascade.types.memory import Turn as Turn
from agentcascade.types.records import CarriedHistory as CarriedHistory
from agentcascade.types.records import Decision as Decision
from agentcascade.types.records import Draft as Draft
from agentcascade.types.records import EpisodeEnd as EpisodeEnd
from agentcascade.types.records import LoggedSample as LoggedSample
from agentcascade.types.records import Outcome as Outcome
from agentcascade.types.records import Rung as Rung
from agentcascade.types.records import Shadow as Shadow
from agentcascade.types.records import Verification as Verification
from agentcascade.types.trajectories import Demonstration as Demonstration
from agentcascade.types.trajectories import Situation as Situation
from agentcascade.types.trajectories import Step as Step
from agentcascade.types.trajectories import Trajectory as Trajectory
from agentcascade.types.trajectories import Tried as Tried
from agentcascade.types.votes import Action as Action
from agentcascade.types.votes import Sample as Sample
from agentcascade.types.votes import Tally as Tally

__all__ = [
    "Account",
    "Action",
    "CacheUse",
    "Call",
    "CarriedHistory",
    "Completion",
    "Decision",
    "Delta",
    "Demonstration",
    "Draft",
    "EpisodeEnd",
    "Judgement",
    "LoggedSample",
    "MODULES",
    "Message",
    "Mode",
    "ModuleName",
    "ModuleRun",
    "Outcome",
    "Purpose",
    "Recall",
    "Role",
    "Rung",
    "Sample",
    "Scope",
    "Shadow",
    "Situation",
    "Step",
    "TIERS",
    "Tally",
    "Tier",
    "Tool",
    "Trajectory",
    "Tried",
    "Turn",
    "Usage",
    "Verification",
]
