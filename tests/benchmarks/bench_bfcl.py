"""Recorded answers of real models to BFCL's tool calls: is the official verdict reproduced, what is agreement worth?

    BFCL_DATA=data/bfcl python tests/benchmarks/bench_bfcl.py [check] [policies] [likeness] [auroc] [certify]
        [--teacher gpt-4-1106-preview-FC …] [--members …] [--all] [--declined-alike] [--every-rule] [--price …]

check: on how many answers our check gives the official verdict, by model and category, and what the rest is. policies:
teachers and members alone, committees of two and three, random mixes at equal teacher share, oracles; rules chosen on
one half of the tasks and counted on the other. likeness: of the errors of members against those of one model's samples.
auroc: agreement within a model, across models, and both together, as a sign that an answer is right.
certify: committees that `agentcascade tune` certifies on one half of the tasks, judged by the official verdicts on the
other half, over 200 splits. Dollars are of August 2024 (`agentcascade.envs.bfcl.prices`). Python tasks alone unless
--all.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from agentcascade.envs.bfcl import keys, labels, prices, recorded, tasks
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.bfcl.models import PREFIX
from agentcascade.envs.bfcl.policies import Against, Floats, Played, Table, against, auroc, likeness
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.errors import AgentCascadeError, EnvironmentFailed
from agentcascade.models.pricing import Price
from agentcascade.routers.tuning.committees import Committee
from agentcascade.routers.tuning.risks import Count, Risk
from agentcascade.routers.tuning.rules import Threshold
from agentcascade.routers.tuning.tuner import Settings, tune
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage

PYTHON = ("simple_python", "multiple", "parallel", "parallel_multiple")
TEACHERS = ["gpt-4-1106-preview-FC", "mistral-large-2407-FC-Auto"]
MEMBERS = [
    *("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"),
    *("gpt-4o-mini-2024-07-18", "gemini-1.5-flash-preview-0514", "gpt-3.5-turbo-0125-FC"),
]
SHORT = {
    "gpt-4o-mini-2024-07-18-FC": "mini-FC",
    "gpt-4o-mini-2024-07-18": "mini",
    "open-mistral-nemo-2407-FC-Auto": "nemo",
    "claude-3-haiku-20240307": "haiku",
    "claude-3-haiku-20240307-FC": "haiku-FC",
    "gemini-1.5-flash-preview-0514": "flash",
    "gpt-3.5-turbo-0125-FC": "gpt-3.5",
    "gpt-4-1106-preview-FC": "GPT-4-1106",
    "gpt-4-0125-preview-FC": "GPT-4-0125",
    "gpt-4-turbo-2024-04-09-FC": "GPT-4-turbo",
    "mistral-large-2407-FC-Auto": "mistral-large",
    "mistral-small-2402-FC-Auto": "mistral-small",
    "gpt-4o-2024-05-13-FC": "gpt-4o-05",
    "gpt-4o-2024-08-06-FC": "gpt-4o-08",
    "claude-3-5-sonnet-20240620-FC": "sonnet-3.5",
}
SPLITS = 200
Rule = tuple[tuple[str, ...], int]
"""Members in the order in which they are asked, and how many must agree"""
NAMED: list[Rule] = [
    (("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto"), 2),
    (("gpt-4o-mini-2024-07-18", "open-mistral-nemo-2407-FC-Auto"), 2),
    (("gpt-4o-mini-2024-07-18-FC", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"), 2),
    (("gpt-4o-mini-2024-07-18", "open-mistral-nemo-2407-FC-Auto", "claude-3-haiku-20240307"), 2),
]


def short(name: str) -> str:
    return SHORT.get(name, name)


def checked(models: Sequence[str]) -> None:
    """Our verdict against the official one."""
    try:
        known = tasks.possible_answers()
    except EnvironmentFailed as error:
        print(f"no check: {error}")
        return
    total = same = 0
    other: Counter[str] = Counter()
    print(f"{'model':46}" + "".join(f"{category:>18}" for category in tasks.CATEGORIES))
    for model in models:
        hits: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for id, answer in recorded.answers(model).items():
            category = tasks.task(id).category
            verdict = check(answer.calls, known[id], tasks.task(id).language, dots=answer.dots)
            counts[category] += 1
            if verdict.right == answer.right:
                hits[category] += 1
            else:
                other[f"{category}: official {answer.right}, ours {verdict.right} {verdict.kind}".strip()] += 1
        total, same = total + counts.total(), same + hits.total()
        cells = (f"{hits[c]}/{counts[c]}" for c in tasks.CATEGORIES)
        print(f"{model[:45]:46}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    print(f"our check gives the official verdict on {same:,} of {total:,} answers ({same / total:.4%})")
    for kind, count in other.most_common(20):
        print(f"  {count:6}  {kind}")


def unjudged(models: Sequence[str]) -> None:
    count = sum(answer.contradicted for model in models for answer in recorded.answers(model).values())
    if count:
        print(
            f"note: this file calls all answers right where no function fits, {count:,} of them that call one, which"
            " the official score files call wrong: taken as wrong here"
        )


def row(name: str, found: Against) -> None:
    right, difference, ratio = (
        f"[{low:.3f}, {high:.3f}]"
        for low, high in (found.right_interval, found.difference_interval, found.ratio_interval)
    )
    print(
        f"{name[:60]:60} {found.right:.3f} {right}  {found.difference:+.3f} {difference:16}  ${found.per_thousand:6.3f}"
        f"  {found.ratio:5.3f} {ratio}  {found.teacher_share:.3f}  {found.seconds:5.2f}"
    )


def rules(members: Sequence[str]) -> list[Rule]:
    pairs: list[Rule] = [(pair, 2) for pair in combinations(members, 2)]
    return pairs + [(triple, need) for triple in combinations(members, 3) for need in (2, 3)]


def played(table: Table, teachers: Sequence[str], members: Sequence[str], every: bool) -> None:
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
        for rule in NAMED:
            if rule not in found and set(rule[0]) <= set(members):
                found[rule] = table.committee(*rule, teacher)
        front = _front(found)
        for rule, outcome in found.items():
            if every or rule in NAMED:
                row(_named(rule), against(outcome, base))
        print(f"of {len(found)} rules those that no other beats in both, chosen in hindsight:")
        for rule in front:
            row("  " + _named(rule), against(found[rule], base))
        for rule in NAMED:
            if rule in found:
                share = float(found[rule].teacher.mean())
                mix = table.mixed(rule[0][0], teacher, share)
                row(f"random mix, {short(rule[0][0])}, share of {_named(rule)}", against(mix, base))
        for member in cheap_first:
            row(f"oracle behind {short(member)}", against(table.oracle(member, teacher), base))
        _halves(found, base)


def _named(rule: Rule) -> str:
    return f"{rule[1]} of {len(rule[0])}: {', '.join(map(short, rule[0]))}"


def _front(found: dict[Rule, Played]) -> list[Rule]:
    """From the cheapest: every one that is more often right than all that are cheaper."""
    best, front = -1.0, []
    for rule in sorted(found, key=lambda r: found[r].dollars.mean()):
        if found[rule].right.mean() > best:
            best = found[rule].right.mean()
            front.append(rule)
    return front


def _halves(found: dict[Rule, Played], base: Played) -> None:
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
        chosen[_named(rule)] += 1
        gains.append(found[rule].right[~half].mean() - base.right[~half].mean())
        ratios.append(found[rule].dollars[~half].mean() / base.dollars[~half].mean())
    if gains:
        worse = sum(g < 0 for g in gains)
        print(
            f"the cheapest rule no worse than the teacher on one half, on the other ({len(gains)} of {SPLITS} splits"
            f" have one): {np.mean(gains):+.4f} right at {np.mean(ratios):.3f} of the cost; worse than the teacher in"
            f" {worse}; chosen most: {'; '.join(f'{name} ({count})' for name, count in chosen.most_common(3))}"
        )


class Voter:
    """One voter on the tasks that all are compared on."""

    def __init__(self, name: str, answers: dict[str, Answer]) -> None:
        self.name, self._answers = name, answers
        self._votes: dict[str, str | None] = {}

    def right(self, ids: Sequence[str]) -> Floats:
        return np.array([float(_right(self._answers[id])) for id in ids])

    def votes(self, ids: Sequence[str]) -> list[str | None]:
        for id in ids:
            if id not in self._votes:
                self._votes[id] = keys.key(self._answers[id], tasks.task(id).tools)
        return [self._votes[id] for id in ids]


def _right(answer: Answer) -> bool:
    if answer.right is not None:
        return answer.right
    task = tasks.task(answer.task)
    return check(answer.calls, tasks.possible_answers()[task.id], task.language).right


def sampled(model: str, ids: Sequence[str]) -> list[Voter]:
    given = recorded.samples(model, lenient=True)
    count = min(len(given[id].answers) for id in ids)
    return [Voter(f"{model} #{i}", {id: given[id].answers[i] for id in ids}) for i in range(count)]


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


def alike(members: Sequence[str], wanted: Sequence[str]) -> None:
    voters = {name: Voter(name, recorded.answers(name)) for name in members}
    print(f"\nerrors of members, pairs on {len(wanted):,} tasks")
    for a, b in combinations(members, 2):
        print(f"  {short(a) + ', ' + short(b):28} {_mean_likeness([(voters[a], voters[b])], wanted)}")
    different = [(voters[a], voters[b]) for a, b in combinations(members, 2)]
    print(f"  {'mean of all pairs':28} {_mean_likeness(different, wanted)}")
    try:
        tasks.possible_answers()
    except EnvironmentFailed as error:
        print(f"no verdicts for our own samples: {error}")
        return
    for model in recorded.sampled():
        ids = [id for id in wanted if id in recorded.samples(model, lenient=True)]
        if not ids:
            continue
        samples = sampled(model, ids)
        print(f"\nsamples of {model}, on {len(ids)} tasks")
        print(f"  {'two samples of it':28} {_mean_likeness(list(combinations(samples, 2)), ids)}")
        for name in members:
            pairs = [(sample, voters[name]) for sample in samples]
            print(f"  {'a sample and ' + short(name):28} {_mean_likeness(pairs, ids)}")
        print(f"  {'two members':28} {_mean_likeness(different, ids)}")
        for other in recorded.sampled():
            shared = [id for id in ids if id in recorded.samples(other, lenient=True)]
            if other > model and shared:
                crossed = [(a, b) for a in sampled(model, shared)[:5] for b in sampled(other, shared)[:5]]
                print(f"  {'a sample of each Qwen':28} {_mean_likeness(crossed, shared)} ({len(shared)} tasks)")


def separated(members: Sequence[str], wanted: Sequence[str]) -> None:
    """AUROC of agreement: of one member with the others; of a sampled model with itself, with others, with both."""
    voters = {name: Voter(name, recorded.answers(name)) for name in members}
    print("\nAUROC of agreement with the others (members), for each member's own answer")
    for name in members:
        share = _shared(voters[name].votes(wanted), [voters[o].votes(wanted) for o in members if o != name])
        print(f"  {short(name):24} {auroc(share, voters[name].right(wanted)):.3f} on {len(wanted):,} tasks")
    try:
        tasks.possible_answers()
    except EnvironmentFailed:
        return
    for model in recorded.sampled():
        ids = [id for id in wanted if id in recorded.samples(model, lenient=True)]
        if not ids:
            continue
        samples = sampled(model, ids)
        votes = [sample.votes(ids) for sample in samples]
        rights = [sample.right(ids) for sample in samples]
        chosen, within, right = [], [], []
        for i in range(len(ids)):
            counted = Counter(v[i] for v in votes if v[i] is not None)
            best = counted.most_common(1)[0] if counted else (None, 0)
            chosen.append(best[0])
            within.append(best[1] / len(votes))
            right.append(next((r[i] for r, v in zip(rights, votes) if v[i] == best[0]), 0.0))
        own, hit = np.array(within), np.array(right)
        print(f"\nAUROC for the plurality of ten samples of {model}, right in {hit.mean():.3f} of {len(ids)} tasks")
        print(f"  within: share of its ten samples {'':24} {auroc(own, hit):.3f}")
        for k in (1, 2, len(members)):
            for group in combinations(members, k) if k < 3 else [tuple(members)]:
                across = _shared(chosen, [voters[o].votes(ids) for o in group])
                names = ", ".join(map(short, group)) if k < 3 else f"all {k} members"
                if k != 2:
                    print(
                        f"  across: agreement with {names:32} {auroc(across, hit):.3f}   together"
                        f" {auroc(across * k + own, hit):.3f}"
                    )


def _shared(votes: Sequence[str | None], others: Sequence[Sequence[str | None]]) -> Floats:
    return np.array(
        [np.mean([v is not None and v == other[i] for other in others]) for i, v in enumerate(votes)], dtype=float
    )


CERTIFIED: list[tuple[Count, float]] = [("marginal", 0.03), ("marginal", 0.05)]
"""What may go wrong at most: of all tasks, those that the committee takes and gets wrong. Not `total`: a log has one
gold key, and a teacher whose right answer is another one would count as wrong."""


def logged(
    ids: Sequence[str], members: Sequence[str], teacher: str, known: dict[str, prices.Price]
) -> list[LoggedStep]:
    """Steps as `agentcascade bench bfcl --log` writes them, made without playing."""
    steps = []
    for id in ids:
        tools = tasks.task(id).tools
        given = {name: recorded.answer(name, id) for name in (*members, teacher)}
        votes = {name: keys.key(answer, tools) for name, answer in given.items()}
        students = tuple(
            StudentSamples(
                model=name,
                samples=(LoggedSample(action=votes[name], tokens=given[name].output_tokens),),
                n=1,
                prompt=Usage(input=given[name].input_tokens or 0),
                price=_price(name, known),
            )
            for name in members
        )
        gold = labels.gold(id, [votes[name] for name in members], votes[teacher], [PREFIX + name for name in given])
        steps.append(
            LoggedStep(
                id=id,
                category=tasks.task(id).category,
                students=students,
                teacher=votes[teacher],
                teacher_model=teacher,
                teacher_usage=Usage(input=given[teacher].input_tokens or 0, output=given[teacher].output_tokens or 0),
                teacher_price=_price(teacher, known),
                gold=gold,
            )
        )
    return steps


def _price(name: str, known: dict[str, prices.Price]) -> Price | None:
    found = prices.price(name, known)
    return None if found is None else Price(input=found.input, output=found.output)


def certified(table: Table, members: Sequence[str], teacher: str, known: dict[str, prices.Price]) -> None:
    """Rules of `tune` at 95 %, found on one half and counted with the official verdicts on the other."""
    cheap_first = sorted(members, key=lambda m: float(table[m].dollars.mean()))
    steps = logged(table.ids, cheap_first, teacher, known)
    base = table.alone(teacher, teacher=True)
    key_of = {step.id: step.gold for step in steps}
    others = [
        id
        for i, id in enumerate(table.ids)
        if any(table[m].right[i] and table[m].votes[i] != key_of[id] for m in cheap_first)
    ]
    print(
        f"\ncertificates, teacher {short(teacher)} (wrong {1 - base.right.mean():.3f}), members"
        f" {', '.join(map(short, cheap_first))}; on {len(others)} of {len(steps)} tasks a member's"
        " right answer is not the gold one and counts as wrong"
    )
    for count, limit in CERTIFIED:
        draw = np.random.default_rng(0)
        over_other = over_all = 0
        risks, ratios, gains = [], [], []
        chosen: Counter[str] = Counter()
        for _ in range(SPLITS):
            half = draw.permutation(len(steps)) < len(steps) // 2
            settings = Settings(max_risk=limit, risk=Risk("wrong", count), rules=("committee",))
            found = tune([step for step, own in zip(steps, half) if own], settings).chosen
            if found is None:
                chosen["none"] += 1
                continue
            rule = found.rule
            assert isinstance(rule, Committee)
            assert isinstance(rule.rule, Threshold)
            names, needed = rule.members, rule.rule.needed
            outcome = table.committee(names, needed, teacher) if needed > 1 else table.alone(names[0])
            bad = (1 - outcome.right) * (1 if count == "total" else 1 - outcome.teacher)
            chosen[_named((names, needed))] += 1
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


def readable(models: Sequence[str]) -> None:
    """How a member's answers without a call and votes that count for nothing are spread."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for model in models:
        for id, answer in recorded.answers(model).items():
            vote = keys.key(answer, tasks.task(id).tools)
            found[model]["no call" if not answer.calls else "votes" if vote else "fits no tool"] += 1
    print("\nanswers by vote: " + "; ".join(f"{short(m)} {dict(c)}" for m, c in found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=["check", "policies", "likeness", "auroc", "certify", []], default=[]
    )
    parser.add_argument("--teacher", nargs="+", default=TEACHERS)
    parser.add_argument("--members", nargs="+", default=MEMBERS)
    parser.add_argument("--models", nargs="+", help="of the check; else all that have answers")
    parser.add_argument("--every-rule", action="store_true", help="print all pairs and triples of members")
    parser.add_argument("--all", action="store_true", help="all 1,390 tasks, not the 1,000 of Python functions")
    parser.add_argument("--declined-alike", action="store_true", help="answers without a call agree whatever they say")
    parser.add_argument(
        "--price", action="append", default=[], metavar="NAME=IN,OUT", help="dollars per million tokens"
    )
    given = parser.parse_args()
    parts = given.parts or ["check", "policies", "likeness", "auroc", "certify"]
    try:
        ids = [id for id, task in tasks.tasks().items() if given.all or task.category in PYTHON]
        known = prices.table(given.price)
        models = given.models or recorded.models()
        unjudged(models)
        if "check" in parts:
            checked(models)
            readable(models)
        if "policies" in parts:
            for name in [*given.teacher, *given.members]:
                cost = prices.price(name, known)
                print(f"{name}: {f'${cost.input} in, ${cost.output} out, {cost.source}' if cost else 'no price'}")
            names = list(dict.fromkeys([*given.teacher, *given.members]))
            played(
                Table(names, ids, known, declined_alike=given.declined_alike),
                given.teacher,
                given.members,
                given.every_rule,
            )
        if "certify" in parts:
            for teacher in given.teacher:
                names = list(dict.fromkeys([teacher, *given.members]))
                table = Table(names, ids, known, declined_alike=given.declined_alike)
                certified(table, given.members, teacher, known)
        if "likeness" in parts:
            alike(given.members, ids)
        if "auroc" in parts:
            separated(given.members, ids)
    except AgentCascadeError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
