"""Break-even acceptance: what follows from a step's dollars, whatever they are."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agentcascade.economics.break_even import StepCosts, billed_steps

dollars = st.decimals("0", "10", places=6)
positive = st.decimals("0.000001", "10", places=6)
ratios = st.floats(0.25, 4)


@given(positive, positive, st.floats(0, 1))
def test_where_a_deferral_buys_the_same_samples_it_is_the_ratio_of_the_steps(student, teacher, acceptance):
    costs = StepCosts(teacher, student, student + teacher)
    if student < teacher:
        assert costs.break_even == pytest.approx(float(Fraction(student) / Fraction(teacher)))
    else:
        assert costs.break_even is None
    spent = Fraction(acceptance) * Fraction(student) + (1 - Fraction(acceptance)) * Fraction(student + teacher)
    assert float(costs.dollars(acceptance)) == pytest.approx(float(spent))


@given(dollars, dollars, dollars, ratios)
@example(Decimal(1), Decimal(1), Decimal(9), 0.9999999999999999)
def test_at_break_even_the_bills_are_equal_and_beyond_it_the_cascade_is_cheaper(teacher, accepted, samples, ratio):
    costs = StepCosts(teacher, accepted, samples + teacher, ratio)
    needed = costs.break_even
    if needed is None:
        assert all(costs.dollars(p) >= teacher * Decimal("0.999999999") for p in (0.0, 0.3, 1.0)) or ratio < 1
        assert costs.dollars(1.0) >= teacher * Decimal("0.999999999")
        return
    assert 0 <= needed < 1
    if needed > 0:
        assert float(costs.dollars(needed)) == pytest.approx(float(teacher), rel=1e-9)
        assert costs.saving(min(1.0, needed + 0.01)) > 0
        assert costs.saving(max(0.0, needed - 0.01)) < 0 or needed < 0.01
    else:
        assert costs.saving(1.0) >= -1e-9


@given(positive, dollars, dollars, ratios, st.decimals("0.000001", "1", places=6))
def test_it_rises_with_what_students_cost_and_falls_with_what_the_teacher_costs(
    teacher, accepted, samples, ratio, more
):
    def needed(teacher, accepted, deferred, longer=ratio):
        found = StepCosts(teacher, accepted, deferred, longer).break_even
        return 2.0 if found is None else found

    before = needed(teacher, accepted, samples + teacher)
    assert needed(teacher, accepted + more, samples + teacher) >= before - 1e-12
    assert needed(teacher, accepted, samples + more + teacher) >= before - 1e-12
    assert needed(teacher, accepted, samples + teacher, longer=ratio * 1.1) >= before - 1e-12
    assume(ratio <= 1)  # else a dearer teacher is also behind more deferrals than it has steps of its own
    assert needed(teacher + more, accepted, samples + teacher + more) <= before + 1e-12


def test_a_cascade_that_cannot_save_has_none():
    assert StepCosts(Decimal(3), Decimal(3), Decimal(6)).break_even is None
    assert StepCosts(Decimal(0), Decimal(0), Decimal(0)).break_even is None  # a free teacher leaves nothing to save
    assert StepCosts(Decimal(3), Decimal(1), Decimal(4), 4.0).break_even is None  # four times as many steps
    assert StepCosts(Decimal(3), Decimal(1), Decimal(4), 2.0).break_even == pytest.approx(2.5 / 3)


@given(st.lists(st.tuples(st.booleans(), dollars), min_size=1, max_size=30), positive, ratios)
@example([(False, Decimal("0.000001")), (True, Decimal("0.000004"))], Decimal("0.000001"), 0.25)
@example([(False, Decimal("0.000001")), *3 * [(True, Decimal("0.00001"))]], Decimal("0.000001"), 0.25)
@example([(False, Decimal("0.000003")), *2 * [(True, Decimal("0.000003"))]], Decimal("0.000006"), 2.0)
@example([*2 * [(False, Decimal(4))], (True, Decimal(1)), (False, Decimal(5))], Decimal(1), 0.9999999999999999)
def test_bills_are_summed_up_so_that_their_acceptance_gives_back_what_was_spent(steps, teacher, ratio):
    found = billed_steps(teacher, steps, ratio)
    if len({taken for taken, _ in steps}) < 2:
        assert found is None
        return
    assert found is not None
    spent = sum((spent for _, spent in steps), Decimal(0)) / len(steps)
    assert float(found.costs.dollars(found.acceptance)) == pytest.approx(float(spent) * ratio)
    needed = found.costs.break_even
    assert ("it pays off from" in found.sentence()) == (needed is not None)
    if needed is None:
        saves = found.costs.saving(found.acceptance) > 0
        assert found.costs.saving(1) <= 1e-9
        assert not saves or found.costs.accepted > found.costs.deferred
        most = found.costs.most_acceptance
        assert ("no acceptance pays off" in found.sentence()) == (not saves and not most)
        assert ("pays off below" in found.sentence()) == (not saves and most > 0)
        assert not most or found.costs.saving(most) == pytest.approx(0, abs=1e-6)
        assert not most or found.costs.saving(most / 2) > 0
    assert billed_steps(teacher, [*steps, (True, None)], ratio) is None
    assert billed_steps(None, steps, ratio) is None
