import pytest

from localization_study.plan import (
    QUALITIES,
    TABLES,
    Condition,
    Fit,
    Wanted,
    plan_study,
)

KINDS = ("a spliced", "b spliced", "b regenerated (whole)")


def wanted(*tables, **changes):
    usual = {"kinds": KINDS, "main": "a spliced", "designs": ("fcn", "iid")}
    return Wanted(tables=tables, **(usual | changes))


def judged(plan, design, kind):
    return [condition.kind for condition in plan[Fit(design, kind, "half")]]


def test_the_matrix_is_every_kind_on_every_kind():
    plan = plan_study(wanted("matrix"))
    assert len(plan) == 6
    for fit in plan:
        assert judged(plan, fit.design, fit.kind) == [*KINDS, "original"]


def test_engines_are_compared_on_spliced_images_alone():
    plan = plan_study(wanted("cross"))
    assert {fit.kind for fit in plan} == set(KINDS[:2])
    assert judged(plan, "fcn", "b spliced") == ["a spliced", "b spliced", "original"]


def test_what_is_trained_on_can_be_chosen():
    only = {"trained_on": ("b spliced",)}
    for table, judged_on in (("matrix", KINDS), ("cross", KINDS[:2])):
        plan = plan_study(wanted(table, **only))
        designs = {(fit.design, fit.kind) for fit in plan}
        assert designs == {("fcn", "b spliced"), ("iid", "b spliced")}
        assert judged(plan, "fcn", "b spliced") == [*judged_on, "original"]
    with pytest.raises(ValueError, match=r"there are no images 'c'\. There are: a spliced"):
        plan_study(wanted("matrix", trained_on=("c",)))


def test_policies_are_judged_by_each_other():
    plan = plan_study(wanted("masks"))
    assert [fit.policy for fit in plan] == ["any", "half", "full"]
    for fit, conditions in plan.items():
        assert fit.design == "fcn"
        assert [condition.policy for condition in conditions] == ["any", "half", "full"]
    assert len(plan_study(wanted("masks", has_greys=False))) == 1


def test_jpeg_is_of_repainted_and_untouched_images():
    plan = plan_study(wanted("jpeg"))
    conditions = plan[Fit("iid", "a spliced", "half")]
    for quality in (None, *QUALITIES):
        for kind in ("a spliced", "original"):
            assert Condition(kind, "half", quality) in conditions


def test_tables_share_their_localisers():
    plan = plan_study(wanted(*TABLES, sizes=("nix:2m", "iid")))
    assert len(plan) == 6 + 2 + 1  # matrix, two more policies, one more size
    for conditions in plan.values():
        assert len(conditions) == len(set(conditions))


@pytest.mark.parametrize(
    ("tables", "changes", "message"),
    [
        (("table3",), {}, "there is no table 'table3'. Choose of matrix"),
        (("matrix",), {"main": "c spliced"}, "no images 'c spliced'. There are: a spliced"),
        (("cross",), {"kinds": KINDS[:1]}, "needs spliced images of two engines, got 1"),
    ],
)
def test_what_cannot_be_is_refused(tables, changes, message):
    with pytest.raises(ValueError, match=message):
        plan_study(wanted(*tables, **changes))
