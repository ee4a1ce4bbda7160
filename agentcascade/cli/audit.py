"""``agentcascade audit``: what the audited steps say of the certified risk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say


@click.command()
@database_options
@click.option("--cascade", "name", default="default", show_default=True, help="Of several in one configuration.")
@click.option("--max-risk", type=FiniteRange(0, 1, min_open=True, max_open=True), help="Instead of audit.risk.")
@click.option(
    "--reset", is_flag=True, help="Acknowledge an alarm: the router acts as configured, the watch begins anew."
)
@click.option("--json", "as_json", is_flag=True)
def command(
    config: Path | None, url: str | None, name: str, max_risk: float | None, reset: bool, as_json: bool
) -> None:
    """How the student's actions compare with the teacher's on audited steps, and the state of the drift watch.

    Set audit.rate (the share of steps that the teacher checks behind the answer) and audit.risk (the certified risk).
    """
    from agentcascade.config.load import variants
    from agentcascade.errors import ConfigError, did_you_mean
    from agentcascade.routers.step.drift_guard import PREFIX
    from agentcascade.storage.shared_value import SharedValue

    settings = load_config(config, url)
    cascades = variants(settings)
    if name not in cascades:
        raise ConfigError(f"there is no cascade '{name}': {did_you_mean(name, cascades)}")
    with database(settings) as opened:
        watch_text = SharedValue(opened, PREFIX + name)
        state = _state(watch_text.read(), opened, name, max_risk or cascades[name].audit.risk)
        if reset:
            watch_text.drop()
    if as_json:
        say(json.dumps(state | {"reset": reset}, indent=2))
        return
    to = console()
    for line in _lines(state):
        to.print(line, style="bold red" if line.startswith("ALARM") else None)
    if reset:
        to.print("the watch begins anew")


def _state(text: str | None, opened: Any, name: str, risk: float | None) -> dict[str, Any]:
    """Counts of the accepted steps that were audited, and the watch."""
    from agentcascade.routers.step.drift import Watch, confidence_sequence
    from agentcascade.steplog.audits import count_audits

    accepted, differing, dollars = count_audits(opened, name)
    low, high = confidence_sequence(differing, accepted)
    state: dict[str, Any] = {
        "cascade": name,
        "audited": accepted,
        "differing": differing,
        "selective_risk": differing / accepted if accepted else None,
        "interval": [low, high],
        "dollars": None if dollars is None else str(dollars),
        "certified_risk": risk,
        "watch": None,
    }
    if text is not None:
        watch = Watch.restored(json.loads(text))
        state["watch"] = {
            "risk": watch.risk,
            "audits": watch.audits,
            "losses": watch.losses,
            "observed": watch.observed,
            "interval": list(watch.interval()),
            "evidence": watch.evidence,
            "alarm_above": 1 / watch.delta,
            "alarmed": watch.alarmed,
            "alarm_at": watch.alarm_at,
        }
    return state


def _lines(state: dict[str, Any]) -> list[str]:
    if not state["audited"] and state["watch"] is None:
        return ["no step was audited: set audit.rate, e.g. 0.05, and audit.risk to what was certified"]
    low, high = state["interval"]
    money = "at unknown dollars" if state["dollars"] is None else f"for ${float(state['dollars']):.4f}"
    lines = [
        f"audited: {state['audited']:,} steps that the student took, {money}; in {state['differing']:,} the teacher "
        f"would have acted otherwise"
    ]
    if state["audited"]:
        share = state["selective_risk"]
        lines.append(f"selective risk: {share:.4f}, 95 % at any time: {low:.4f} to {high:.4f}")
    watch = state["watch"]
    if watch is None:
        return [*lines, "no risk is watched: set audit.risk to what was certified"]
    observed = "none yet" if watch["observed"] is None else f"{watch['observed']:.4f}"
    lines.append(
        f"watch: {watch['audits']:,} steps drawn, observed {observed}, certified {watch['risk']:g}; evidence "
        f"{watch['evidence']:.3g}, alarm at {watch['alarm_above']:.0f}"
    )
    if watch["alarmed"]:
        lines.append(
            f"ALARM since audit {watch['alarm_at']:,}: the certified risk does not hold; collect "
            "a new log and tune again, then --reset"
        )
    return lines
