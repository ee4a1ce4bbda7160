"""Step logs as Parquet: one row a step, students and samples as nested lists, for DuckDB and pandas.

Columns are the fields of `LoggedStep`; `students` is list<struct> with `samples` list<struct> inside, token counts are
int64 by class, prices decimals (dollars per million tokens). For one row a sample in DuckDB:
``SELECT id, unnest(students[1].samples) FROM 'log.parquet'``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentcascade._util.files import PRIVATE, append_to, replaceable
from agentcascade.errors import InvalidRequest, MissingExtra
from agentcascade.models.pricing import TOKEN_CLASSES
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Usage

FORMAT = 3
"""2: with `also_right`; 3: with what a verifier said"""
MARK = b"agentcascade.steplog"
ROW_GROUP = 10_000
"""Rows in a row group, which are in memory at once"""


def write_parquet(path: Path, steps: Iterable[LoggedStep]) -> int:
    """Write a Parquet file, whole or not at all. Returns the number of steps. Raises `MissingExtra`."""
    pa, pq = _pyarrow()
    schema = _schema(pa)
    path.parent.mkdir(parents=True, exist_ok=True)
    path = replaceable(path)
    part = path.with_name(f".{path.name}.part")
    written = 0
    try:
        with append_to(part):  # pyarrow would make it by the umask
            part.chmod(path.stat().st_mode & 0o777 if path.exists() else PRIVATE)
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            left = iter(steps)
            while some := list(islice(left, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist([_row(step) for step in some], schema))
                written += len(some)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return written


def read_parquet(path: Path) -> list[LoggedStep]:
    """Read all steps. Raises `InvalidRequest` for a broken file or another table."""
    return list(chain.from_iterable(iterate_parquet(path)))


def iterate_parquet(path: Path) -> Iterator[list[LoggedStep]]:
    """Read the steps one row group at a time."""
    pa, pq = _pyarrow()
    try:
        file = pq.ParquetFile(path)
        mark = (file.schema_arrow.metadata or {}).get(MARK)
        if mark is None:
            raise InvalidRequest(f"{path} is Parquet, but no log of steps: `agentcascade log export` writes one")
        if int(mark) > FORMAT:
            raise InvalidRequest(f"{path} is of format {int(mark)}, this version reads up to {FORMAT}: upgrade")
        for batch in file.iter_batches(ROW_GROUP):
            yield [LoggedStep.model_validate(_plain(row)) for row in batch.to_pylist()]
    except (OSError, pa.ArrowException, ValidationError) as error:
        raise InvalidRequest(f"{path} cannot be read as a log: {' '.join(str(error).split())[:200]}") from None


def _row(step: LoggedStep) -> dict[str, Any]:
    row = step.model_dump()
    for price in _prices(row):
        price["long_context"] = [{"above": above, "rates": rates} for above, rates in price["long_context"]]
    return row


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as pydantic takes it: pairs instead of structs in a price's tiers."""
    for price in _prices(row):
        price["long_context"] = [(tier["above"], tier["rates"]) for tier in price["long_context"]]
    return dict(row)


def _prices(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    prices = row["teacher_price"], *(student["price"] for student in row["students"])
    return [price for price in prices if price is not None]


def _schema(pa: Any) -> Any:
    text, number, real, exact = pa.string(), pa.int64(), pa.float64(), pa.decimal128(38, 15)
    usage = pa.struct([(name, number) for name in Usage.model_fields])
    rates = [(name, exact) for name in TOKEN_CLASSES]
    tiers = pa.list_(pa.struct([("above", number), ("rates", pa.struct(rates))]))
    price = pa.struct([*rates, ("long_context", tiers)])
    sample = pa.struct(
        [("action", text), ("text", text), ("invalid", text), ("logprob", real), ("tokens", number), ("score", real)]
    )
    student = pa.struct(
        [
            *(("model", text), ("samples", pa.list_(sample)), ("n", number), ("temperature", real), ("k", number)),
            *(
                ("window", text),
                ("vary", text),
                ("history", text),
                ("demonstrations", pa.list_(text)),
                ("similarity", real),
                ("prompt", usage),
            ),
            *(("price", price), ("verifier", text), ("verifier_dollars", exact)),
        ]
    )
    known = {
        **dict.fromkeys(("id", "episode", "namespace", "goal", "category", "observation"), text),
        **dict.fromkeys(("teacher", "teacher_model", "gold", "kind"), text),
        "also_right": pa.list_(text),
        "step": number,
        "asked_together": number,
        "students": pa.list_(student),
        "teacher_usage": usage,
        "teacher_price": price,
        "success": pa.bool_(),
        "accepted": pa.bool_(),
        "propensity": real,
        "created_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, known[name]) for name in LoggedStep.model_fields], metadata={MARK: str(FORMAT).encode()})


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "a log in Parquet") from error
    return pa, pq
