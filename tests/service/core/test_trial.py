"""A trial: minutes become observations once each, and what was kept goes on as if nothing had happened."""

import json
from dataclasses import replace

import numpy as np
import pytest

from service.core.minutes import Minute
from service.core.trial import COARSER_EVERY, Trial, summary_of, trial_of

T0 = 1_700_000_040.0
DAY_S = 86_400.0


def trial(**more):
    settings = {"began": T0, "level": 0.05, "deadline": T0 + 7 * DAY_S, "minute_s": 60.0, "through": T0 - 60.0}
    return Trial("toy", 2, "c" * 64, 1, "s" * 64, **{**settings, **more})


def minute(n, steps, total):
    return Minute(T0 + 60 * n, (steps, total))


def kept(one):
    """What is kept of it, through JSON."""
    return json.loads(json.dumps(one.as_dict(one.standing()), allow_nan=False))


def test_minutes_with_few_steps_are_merged_with_the_next_and_count_when_they_are_enough():
    one = trial().with_minutes([minute(0, 10, 1.0), minute(1, 1, 0.5), minute(2, 2, -0.5)])
    assert one.observations == ((T0, 1, 10, 1.0), (T0 + 60, 2, 3, 0.0))
    assert len(one.standing().mean) == 1
    one = one.with_minutes([minute(9, 1, 1.0), minute(10, 4, 2.0)])
    assert one.observations[1:] == ((T0 + 60, 3, 4, 1.0), (T0 + 600, 1, 4, 2.0))
    assert one.standing().mean.tolist() == pytest.approx([0.1, (0.1 + 0.25) / 2, (0.1 + 0.25 + 0.5) / 3])
    assert one.steps == 18


def test_a_minute_counts_once_and_none_from_before_the_trial():
    minutes = [minute(n, 5, 1.0) for n in range(-3, 8)]
    whole = trial().with_minutes(minutes)
    assert len(whole.observations) == 8
    assert whole.with_minutes(minutes) == whole
    assert trial().with_minutes(minutes[:5]).with_minutes(minutes[3:]) == whole


def test_minutes_read_one_by_one_and_kept_in_between_make_the_same_trial_as_all_at_once():
    rng = np.random.default_rng(7)
    minutes = [
        minute(n, int(steps), float(rng.uniform(-1, 1) * steps)) for n, steps in enumerate(rng.integers(0, 9, 80))
    ]
    one = trial(earlier=({"verdict": "worse"},))
    whole = one.with_minutes(minutes)
    for each in minutes:
        one = trial_of(kept(one.with_minutes([each])))
    assert one == whole


@pytest.mark.parametrize("values", [(), (5,), (0, 0.0), (3, 3.5), (-2, 0.0)])
def test_sums_that_can_not_be_of_clipped_differences_count_for_nothing(values):
    one = trial().with_minutes([Minute(T0, values)])
    assert (one.observations, one.through) == ((), T0)
    assert one.with_minutes([minute(1, 4, 4.0)]).standing().mean.tolist() == [1.0]


def test_the_verdict_is_better_worse_or_at_the_deadline_undecided():
    for total, verdict in ((5.0, "better"), (-5.0, "worse"), (0.0, None)):
        one = trial().with_minutes([minute(n, 10, total) for n in range(40)])
        found = one.judged(one.standing(), T0 + 3000, generation=7)
        assert found.verdict == verdict
        if verdict is None:
            assert found == replace(one, generation=7)
            found = one.judged(one.standing(), one.deadline, generation=7)
            assert found.verdict == "undecided"
        assert (found.decided, found.generation) in ((T0 + 3000, 7), (one.deadline, 7))
        assert trial_of(kept(found)) == found


def test_what_is_kept_says_for_people_how_it_stands():
    empty = kept(trial())
    assert (empty["steps"], empty["mean"], empty["interval"]) == (0, None, None)
    assert empty["wealth"] == {"better": 1.0, "worse": 1.0}
    said = kept(trial().with_minutes([minute(n, 10, 5.0 + n % 2) for n in range(40)]))
    assert (said["steps"], said["minutes"]) == (400, 40)
    assert said["interval"][0] < said["mean"] < said["interval"][1]
    assert said["wealth"]["better"] > 20 > 1 >= said["wealth"]["worse"]
    assert len(said["log10_wealth"]["better"]) == len(said["log10_wealth"]["worse"]) == 40
    assert 10 ** said["log10_wealth"]["better"][-1] == pytest.approx(said["wealth"]["better"], rel=1e-3)
    assert "observations" not in summary_of(said)
    assert summary_of(said)["wealth"] == said["wealth"]


@pytest.mark.parametrize("change", [{"began": "now"}, {"observations": [[1]]}, {"observations": 3}, {"earlier": None}])
def test_what_is_no_trial_is_none(change):
    whole = kept(trial())
    assert trial_of(whole) is not None
    assert trial_of({**whole, **change}) is None
    assert trial_of({"format": 1}) is None
    assert trial_of(None) is None


def test_a_trial_of_very_many_minutes_takes_more_of_them_together():
    one = trial(minute_s=0.1).with_minutes([Minute(T0 + 0.1 * t, (9, 9.0)) for t in range(COARSER_EVERY + 5)])
    assert [each.minutes for each in one.observations[-4:]] == [1, 2, 2, 1]
    assert len(one.standing().mean) == COARSER_EVERY + 2
