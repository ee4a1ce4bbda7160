"""Committees of recorded models in figures, for bench_bfcl.py and bench_sql_committees.py: tables of policies, rules
chosen or certified on one half of the tasks and counted on the other, likeness of errors, AUROC of agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from agentcascade.envs.recorded.policies import Against, Floats, Played, Table, against, auroc, likeness
from agentcascade.routers.tuning.committees import Committee
from agentcascade.routers.tuning.risks import Count, Risk
from agentcascade.routers.tuning.rules import Threshold
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.steplog.types import LoggedStep

SPLITS = 200
Rule = tuple[tuple[str, ...], int]
"""Members in the order in which they are asked, and how many must agree"""
Limit = tuple[Count, float]
"""What may go wrong at most, and how often"""
Short = Callable[[str], str]


def row(name: str, found: Against) -> None:
    right, difference, ratio = (
        f"[{low:.3f}, {high:.3f}]"
        for low, high in (found.right_interval, found.difference_interval, found.ratio_interval)
    )
    seconds = "" if np.isnan(found.seconds) else f"  {found.seconds:5.2f}"
    print(
        f"{name[:60]:60} {found.right:.3f} {right}  {found.difference:+.3f} {difference:16}  ${found.per_thousand:6.3f}"
        f"  {found.ratio:5.3f} {ratio}  {found.teacher_share:.3f}{seconds}"
    )


def rules(members: Sequence[str]) -> list[Rule]:
    pairs: list[Rule] = [(pair, 2) for pair in combinations(members, 2)]
    return pairs + [(triple, need) for triple in combinations(members, 3) for need in (2, 3)]


def print_policies(
    table: Table, teachers: Sequence[str], members: Sequence[str], chosen: Sequence[Rule], short: Short, every: bool
) -> None:
    """Teachers and members alone, committees, random mixes and oracles; rules chosen in hindsight, and on one half."""
    costs = {m: float(table[m].dollars.mean()) for m in members}
    cheap_first = sorted(members, key=lambda m: costs[m])
    for teacher in teachers:
        base = table.alone(teacher, teacher=True)
        print(
            f"\n{'teacher ' + short(teacher):58} right [95 %]           against the teacher       $/1,000"
            "   of its cost            asked  s in turn"
        )
        row(f"teacher alone: {short(teacher)}", against(base, base))
        for member in cheap_first:
            row(f"alone: {short(member)}", against(table.alone(member), base))
        found = {rule: table.committee(*rule, teacher) for rule in rules(cheap_first)}
        for rule in chosen:
            if rule not in found and set(rule[0]) <= set(members):
                found[rule] = table.committee(*rule, teacher)
        for rule, outcome in found.items():
            if every or rule in chosen:
                row(named(rule, short), against(outcome, base))
        print(f"of {len(found)} rules those that no other beats in both, chosen in hindsight:")
        for rule in front(found):
            row("  " + named(rule, short), against(found[rule], base))
        for rule in chosen:
            if rule in found:
                share = float(found[rule].teacher.mean())
                mix = table.mixed(rule[0][0], teacher, share)
                row(f"random mix, {short(rule[0][0])}, share of {named(rule, short)}", against(mix, base))
        for member in cheap_first:
            row(f"oracle behind {short(member)}", against(table.oracle(member, teacher), base))
        print_halves(found, base, short)


def named(rule: Rule, short: Short) -> str:
    return f"{rule[1]} of {len(rule[0])}: {', '.join(map(short, rule[0]))}"


def front(found: Mapping[Rule, Played]) -> list[Rule]:
    """From the cheapest: every one that is more often right than all that are cheaper."""
    best, chosen = -1.0, []
    for rule in sorted(found, key=lambda r: found[r].dollars.mean()):
        if found[rule].right.mean() > best:
            best = found[rule].right.mean()
            chosen.append(rule)
    return chosen


def print_halves(found: Mapping[Rule, Played], base: Played, short: Short) -> None:
    """The cheapest rule that is no worse than the teacher on one half of the tasks, counted on the other."""
    draw = np.random.default_rng(0)
    n = len(base.right)
    gains, ratios, chosen = [], [], Counter[str]()
    for _ in range(SPLITS):
        half = draw.permutation(n) < n // 2
        good = [
            (p.dollars[half].mean(), r) for r, p in found.items() if p.right[half].mean() >= base.right[half].mean()
        ]
        if not good:
            continue
        rule = min(good)[1]
        chosen[named(rule, short)] += 1
        gains.append(found[rule].right[~half].mean() - base.right[~half].mean())
        ratios.append(found[rule].dollars[~half].mean() / base.dollars[~half].mean())
    if gains:
        worse = sum(g < 0 for g in gains)
        print(
            f"the cheapest rule no worse than the teacher on one half, on the other ({len(gains)} of {SPLITS} splits"
            f" have one): {np.mean(gains):+.4f} right at {np.mean(ratios):.3f} of the cost; worse than the teacher in"
            f" {worse}; chosen most: {'; '.join(f'{name} ({count})' for name, count in chosen.most_common(3))}"
        )


def print_certified(
    table: Table,
    steps: Sequence[LoggedStep],
    teacher: str,
    limits: Sequence[Limit],
    short: Short,
    groups: Sequence[str] | None = None,
) -> None:
    """Rules of `tune` at 95 %, found on one half and counted with the verdicts on the other.

    Args:
        table: of the steps' tasks, in their order.
        groups: of tasks that stay on one side; default: each alone.
    """
    base = table.alone(teacher, teacher=True)
    own = np.unique(groups if groups is not None else table.ids, return_inverse=True)[1]
    for count, limit in limits:
        draw = np.random.default_rng(0)
        over_other = over_all = 0
        risks, ratios, gains = [], [], []
        chosen: Counter[str] = Counter()
        for _ in range(SPLITS):
            half = (draw.permutation(own.max() + 1) < (own.max() + 1) // 2)[own]
            settings = Settings(max_risk=limit, risk=Risk("wrong", count), rules=("committee",))
            found = tune([step for step, mine in zip(steps, half) if mine], settings).chosen
            if found is None:
                chosen["none"] += 1
                continue
            rule = found.rule
            assert isinstance(rule, Committee)
            assert isinstance(rule.rule, Threshold)
            names, needed = rule.members, rule.rule.needed
            outcome = table.committee(names, needed, teacher) if needed > 1 else table.alone(names[0])
            bad = (1 - outcome.right) * (1 if count == "total" else 1 - outcome.teacher)
            chosen[named((names, needed), short)] += 1
            over_other += bad[~half].mean() > limit
            over_all += bad.mean() > limit
            risks.append(bad[~half].mean())
            gains.append(outcome.right[~half].mean() - base.right[~half].mean())
            ratios.append(outcome.dollars[~half].mean() / base.dollars[~half].mean())
        made = SPLITS - chosen["none"]
        said = "none certified"
        if made:
            said = (
                f"risk on the other half {np.mean(risks):.3f}, {np.mean(gains):+.3f} right at {np.mean(ratios):.3f} of"
                f" the cost; above the limit on all tasks {over_all}, on the other half {over_other} of {made}; chosen:"
                f" {'; '.join(f'{name} ({n})' for name, n in chosen.most_common(3))}"
            )
        print(f"  wrong, {count}, at most {limit}: {said}", flush=True)


class Voter:
    """What one voter said to the tasks that all are compared on."""

    def __init__(self, right: Mapping[str, float], votes: Mapping[str, str | None]) -> None:
        self._right, self._votes = right, votes

    def right(self, ids: Sequence[str]) -> Floats:
        return np.array([self._right[id] for id in ids])

    def votes(self, ids: Sequence[str]) -> list[str | None]:
        return [self._votes[id] for id in ids]

    def has(self, id: str) -> bool:
        return id in self._votes


def print_likeness(
    members: Mapping[str, Voter], samples: Mapping[str, Sequence[Voter]], wanted: Sequence[str], short: Short
) -> None:
    """How alike errors are: of members, of samples of one model, and of a sample and a member."""
    print(f"\nerrors of members, pairs on {len(wanted):,} tasks")
    pairs = list(combinations(members, 2))
    for a, b in pairs:
        print(f"  {short(a) + ', ' + short(b):34} {_mean_likeness([(members[a], members[b])], wanted)}")
    different = [(members[a], members[b]) for a, b in pairs]
    print(f"  {'mean of all pairs':34} {_mean_likeness(different, wanted)}")
    for model, own in samples.items():
        ids = [id for id in wanted if all(sample.has(id) for sample in own)]
        if not ids:
            continue
        print(f"\nsamples of {model}, on {len(ids):,} tasks")
        print(f"  {'two samples of it':34} {_mean_likeness(list(combinations(own, 2)), ids)}")
        for name, voter in members.items():
            if name == model.partition(" ")[0]:
                continue  # its answer is one of the samples
            print(f"  {'a sample and ' + short(name):34} {_mean_likeness([(one, voter) for one in own], ids)}")
        print(f"  {'two members':34} {_mean_likeness(different, ids)}")
        for other, theirs in samples.items():
            shared = [id for id in ids if all(sample.has(id) for sample in theirs)]
            if other > model and shared:
                crossed = [(a, b) for a in own[:5] for b in theirs[:5]]
                print(f"  {'a sample and one of ' + other:34} {_mean_likeness(crossed, shared)} ({len(shared):,})")


def _mean_likeness(pairs: Sequence[tuple[Voter, Voter]], ids: Sequence[str]) -> str:
    found = [likeness(a.right(ids), b.right(ids), a.votes(ids), b.votes(ids)) for a, b in pairs]
    wrong = np.mean([f.wrong for f in found])
    both, chance, kappa, same, agree, right, deceived = (
        float(np.nanmean(values))
        for values in zip(
            *(
                (f.both_wrong, f.by_chance, f.kappa, f.same_answer, f.agree, f.right_when_agreed, f.agreed_and_wrong)
                for f in found
            )
        )
    )
    return (
        f"wrong {wrong:.3f}  both wrong {both:.3f} ({both / chance:.2f} of chance)  kappa {kappa:.3f}  same wrong"
        f" answer {same:.3f}  agree {agree:.3f}  right when agreed {right:.3f}  agreed and wrong {deceived:.3f}"
    )


def print_auroc(
    members: Mapping[str, Voter], samples: Mapping[str, Sequence[Voter]], wanted: Sequence[str], short: Short
) -> None:
    """AUROC of agreement: of one member with the others; of a sampled model with itself, with others, with both."""
    print("\nAUROC of agreement with the others (members), for each member's own answer")
    for name in members:
        share = _shared(members[name].votes(wanted), [members[o].votes(wanted) for o in members if o != name])
        print(f"  {short(name):24} {auroc(share, members[name].right(wanted)):.3f} on {len(wanted):,} tasks")
    for model, own in samples.items():
        ids = [id for id in wanted if all(sample.has(id) for sample in own)]
        if not ids:
            continue
        votes, rights = [sample.votes(ids) for sample in own], [sample.right(ids) for sample in own]
        chosen, within, right = [], [], []
        for i in range(len(ids)):
            counted = Counter(v[i] for v in votes if v[i] is not None)
            best = counted.most_common(1)[0] if counted else (None, 0)
            chosen.append(best[0])
            within.append(best[1] / len(votes))
            right.append(next((r[i] for r, v in zip(rights, votes) if v[i] == best[0]), 0.0))
        share_within, hit = np.array(within), np.array(right)
        print(f"\nAUROC for the plurality of {len(own)} samples of {model}, right in {hit.mean():.3f} of {len(ids):,}")
        print(f"  within: share of its own samples {'':21} {auroc(share_within, hit):.3f}")
        for group in [*((name,) for name in members), tuple(members)]:
            across = _shared(chosen, [members[o].votes(ids) for o in group])
            names = short(group[0]) if len(group) == 1 else f"all {len(group)} members"
            print(
                f"  across: agreement with {names:32} {auroc(across, hit):.3f}   together"
                f" {auroc(across * len(group) + share_within, hit):.3f}"
            )


def _shared(votes: Sequence[str | None], others: Sequence[Sequence[str | None]]) -> Floats:
    return np.array(
        [np.mean([v is not None and v == other[i] for other in others]) for i, v in enumerate(votes)], dtype=float
    )
