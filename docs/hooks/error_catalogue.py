"""The page of errors: every public error, what it means over HTTP, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cells import code

from agentcascade import errors
from agentcascade.errors import AgentCascadeError
from agentcascade.server.errors import explain

HEAD = """\
# Errors

All errors that agentcascade raises itself are below `agentcascade.AgentCascadeError`; each message names the value at fault and says what to do.
What a provider refuses keeps the class of the provider's SDK in your own process, cleaned of keys. Over HTTP an error has OpenAI's shape (Anthropic's
below `/v1/messages`), and the status that is named here. What an attempt has cost although it failed is `agentcascade.errors.bill_of(error)`.

A student's failure is never an error of yours: the step is the teacher's, and the decision's `failures` says what happened
([Debug a deferral](../how-to/debug-a-deferral.md)).
"""
WHAT_TO_DO = {
    "AgentCascadeError": "Catch it to catch everything that agentcascade itself raises.",
    "ConfigError": "Correct the key that the message names. `agentcascade doctor` builds the whole configuration and shows every such error before you serve.",
    "MissingExtra": "Install the extra that the message names: `pip install \"agentcascade[EXTRA]\"`. `agentcascade doctor` lists all extras and what each brings.",
    "InvalidRequest": "Correct the messages or the argument that is named. Nothing was sent, nothing is billed.",
    "InvalidAction": "You see it from an action format of your own, or as a failure of samples. If it is common, the student does not keep the format: show it demonstrations, raise `max_tokens`, or see [Debug a deferral](../how-to/debug-a-deferral.md).",
    "EmptyCompletion": "The provider was paid and gave no message. Look at `bill_of(error)`; do not repeat it blindly. A thinking model with too small a `max_tokens` is the usual cause.",
    "ProviderError": "Read the message: it quotes the provider. Is the base URL that of an API and not of a web page? Is the server up? `agentcascade doctor --call` asks each model one real question.",
    "BrokenStream": "The connection ended before the answer. What was generated is booked. Repeat the step if it had no side effects.",
    "NoBatches": "Run the command without `--batch`, or with a model whose provider has batches here ([Batches](../batches.md)).",
    "BatchFailed": "`agentcascade batch status ID` says what became of its requests. Run the same command again: what was sent is found, not sent twice.",
    "EpisodeClosed": "Start a new episode: this one was finished, and its demonstration may be banked already.",
    "CascadeClosed": "Do not use a cascade after its `with` block or `close()`. Build it once for the life of the process.",
    "UnknownPrice": "Give the model a `price`, or all models of a name one under `server.prices`. It is never guessed.",
    "BudgetExceeded": "`scope` says whose budget: key, namespace or episode. Wait for the next period, raise it, or set `budgets.when_exceeded: student`. `agentcascade keys list` shows what is left.",
    "RateLimited": "Wait `retry_after` seconds, as OpenAI's and Anthropic's clients do by themselves; raise `--rpm` of the key.",
    "InvalidKey": "Send a valid key: `agentcascade keys create NAME` makes one, `agentcascade keys list` shows which ended or were revoked.",
    "UnknownEpisode": "Send the id that the answer's field `agentcascade` holds, with a key of the same namespace. Drafts are kept for `retention.drafts` days.",
    "StorageError": "Read the message: disk full, no permission, no connection, locked by another machine. Answers go on where they can; records wait in the journal.",
    "CorruptDatabase": "Restore the file from a backup, or move it away and start a new one; nothing is overwritten.",
    "NewerDatabase": "Install the version that wrote it, or a newer one. Databases are never migrated backwards.",
    "BankError": "Correct what the message names.",
    "UnknownTrajectory": "`agentcascade bank list` shows the ids of your namespace.",
    "EmbeddingError": "The embedder is broken or of another shape. Check the model's files; with an embedder of your own return one finite vector of fixed length a text.",
    "EmbeddingModelChanged": "Set `retrieval.embedder` back, or run `agentcascade bank reembed` to embed the bank with the new one.",
    "EnvironmentFailed": "Install the environment (`agentcascade env install NAME`), set the variable that the message names, or read its log.",
    "BenchError": "Correct the option that is named. With `--resume` the options must be those of the run.",
}  # fmt: skip
ANOTHER_STATUS = {
    "MissingExtra": "only at the start",
    "NewerDatabase": "only at the start",
    "CorruptDatabase": "only at the start",
}


def page() -> str:
    """The page, in Markdown. Raises `KeyError` for an error without advice."""
    logging.getLogger("agentcascade.server").disabled = True  # it logs every error that it explains
    parts = [HEAD]
    for depth, error in _tree(AgentCascadeError):
        bases = [b.__name__ for b in error.__bases__ if b not in (AgentCascadeError, Exception)]
        about = (error.__doc__ or "").strip()
        parts.append(f"\n## {error.__name__}\n\n{about}\n")
        parts.append(f"**What to do.** {WHAT_TO_DO[error.__name__]}\n")
        notes = [f"HTTP {_status(error)}"] if depth else []
        notes += [f"also a {', '.join(code(b) for b in bases)}"] if bases else []
        parts.append(("; ".join(notes) + ".\n") if notes else "")
    if unknown := set(WHAT_TO_DO) - {e.__name__ for _, e in _tree(AgentCascadeError)}:
        raise ValueError(f"advice about errors that do not exist: {sorted(unknown)}")
    return "\n".join(parts)


def _tree(error: type[AgentCascadeError], depth: int = 0) -> Iterator[tuple[int, type[AgentCascadeError]]]:
    yield depth, error
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below, depth + 1)


def _status(error: type[AgentCascadeError]) -> str:
    if error.__name__ in ANOTHER_STATUS:
        return ANOTHER_STATUS[error.__name__]
    problem = explain(error.__new__(error, "")) if error.__init__ is Exception.__init__ else explain(error(""))
    return f"{problem.status}" + (f", code {code(problem.code)}" if problem.code else "")
