"""The tables, as SQLAlchemy Core sees them. Changing one means writing a migration."""

from __future__ import annotations

from agentcascade.storage.columns import PICO as PICO
from agentcascade.storage.columns import Dollars as Dollars
from agentcascade.storage.tables.bank import embeddings as embeddings
from agentcascade.storage.tables.bank import outcomes as outcomes
from agentcascade.storage.tables.bank import removals as removals
from agentcascade.storage.tables.bank import rewrite_calls as rewrite_calls
from agentcascade.storage.tables.bank import rewrites as rewrites
from agentcascade.storage.tables.bank import shortened as shortened
from agentcascade.storage.tables.bank import steps as steps
from agentcascade.storage.tables.bank import trajectories as trajectories
from agentcascade.storage.tables.bank import uses as uses
from agentcascade.storage.tables.budgets import accounts as accounts
from agentcascade.storage.tables.budgets import bookings as bookings
from agentcascade.storage.tables.budgets import keys as keys
from agentcascade.storage.tables.budgets import rates as rates
from agentcascade.storage.tables.budgets import reservations as reservations
from agentcascade.storage.tables.memory import computed as computed
from agentcascade.storage.tables.memory import histories as histories
from agentcascade.storage.tables.memory import recall_calls as recall_calls
from agentcascade.storage.tables.memory import recalls as recalls
from agentcascade.storage.tables.memory import turns as turns
from agentcascade.storage.tables.provider_batches import audit_entries as audit_entries
from agentcascade.storage.tables.provider_batches import audit_rounds as audit_rounds
from agentcascade.storage.tables.provider_batches import batch_calls as batch_calls
from agentcascade.storage.tables.provider_batches import batch_requests as batch_requests
from agentcascade.storage.tables.provider_batches import batches as batches
from agentcascade.storage.tables.records import cached_responses as cached_responses
from agentcascade.storage.tables.records import calls as calls
from agentcascade.storage.tables.records import decisions as decisions
from agentcascade.storage.tables.records import drafts as drafts
from agentcascade.storage.tables.records import episodes as episodes
from agentcascade.storage.tables.records import responses as responses
from agentcascade.storage.tables.records import shadows as shadows
from agentcascade.storage.tables.schema import metadata as metadata
from agentcascade.storage.tables.schema import settings as settings
