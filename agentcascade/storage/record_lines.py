"""Records as JSON lines, as journal and spill file hold them."""

from __future__ import annotations

import json

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from agentcascade.errors import StorageError
from agentcascade.storage.record_rows import Record
from agentcascade.types import Draft, EpisodeEnd, Frozen, Recall, Shadow

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def from_line(line: str | bytes) -> Record:
    """Raises `ValidationError` for a line that holds no record, `RecursionError` for one that nests too deep."""
    return _RECORD.validate_json(line)


def without_recalled_text(recall: Recall) -> Recall:
    """The recall without what is stored already: parts of the history."""
    return recall.model_copy(update={"text": ""})


def record_key(record: Record) -> tuple[str, str]:
    """Equal for two records of one thing."""
    kind = type(record).__name__
    if isinstance(record, Shadow):
        return kind, record.decision
    if isinstance(record, Draft):
        return kind, f"{record.namespace}\0{record.episode}\0{record.position}\0{record.created_at}"
    return kind, f"{record.namespace}\0{record.episode}" if isinstance(record, EpisodeEnd) else record.id


def to_line(record: Frozen) -> str:
    """The record as one line of JSON. Lone surrogates, which UTF-8 cannot encode, become question marks."""
    try:
        return record.model_dump_json()
    except PydanticSerializationError:
        text = json.dumps(record.model_dump(mode="python"), ensure_ascii=False, default=str)
        return text.encode(errors="replace").decode()


def is_bad_record(error: Exception) -> bool:
    """Whether the record's values are at fault, rather than the database."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, DBAPIError):
        return isinstance(cause, DataError | IntegrityError)
    return isinstance(cause, StatementError | ValueError | OverflowError | TypeError)
