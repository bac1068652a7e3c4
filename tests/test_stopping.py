"""When a trial ends: each rule on a curve made for it and on its near miss, and what holds for all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config import Stopping
from tuner.curve import Curve
from tuner.stopping import KINDS, Peer, Verdict, alone, finished, judge, peer, timed_out

ON = Stopping()
FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]  # smoothed, too, the last is the lowest; L_0 is 2
MAKE: Callable[..., Curve]


@pytest.fixture(autouse=True, scope="module")
def _make(make_curve: Callable[..., Curve]) -> None:
    global MAKE
    MAKE = make_curve


def only(**on: bool) -> Stopping:
    return Stopping.off().model_copy(update=on)


def flat(level: float, epochs: int = 60, pruned: bool = False) -> Peer:
    return Peer((level,) * epochs, pruned)


def first_verdict(curve: Curve, peers: Sequence[Peer] = (), rules: Stopping = ON) -> Verdict | None:
    """Judge epoch after epoch, as a search does."""
    for t in range(1, len(curve) + 1):
        if (verdict := judge(replace(curve, epochs=curve.epochs[:t]), peers, rules)) is not None:
            return verdict
    return None


# One curve for each rule: it fires at the last epoch and not before.

LATE = [0.5, 0.62, 0.62, 0.62]


def overfits(**changed: Any) -> Curve:
    """Best at epoch 8 with .5; the last three are .62, .12 above: 24 % and .06 L_0."""
    options: dict[str, Any] = {"budget": 50, "rise_se": 0.01} | changed
    val = [*FALLING, 0.5, *options.pop("late", LATE)]
    train = options.pop("train", [0.9 * loss for loss in FALLING] + [0.4, 0.3, 0.2, 0.1, 0.1])
    return MAKE(val, train[: len(val)], **options)


def plateaus(epochs: int = 10, budget: int = 60) -> Curve:
    """The best is epoch 12 and the last `epochs` later."""
    val = [1.0 - 0.05 * t for t in range(12)] + [0.5] * epochs
    return MAKE(val, val, budget=budget)


def lags() -> Curve:
    return MAKE([1.0] * 5, budget=50, se_val=0.01)


def explodes(level: float = 6.1) -> Curve:
    return MAKE([1.0, 1.0, 1.0, level, level, level], budget=50)


def breaks() -> Curve:
    return MAKE([1.0, math.nan], budget=50)


PEERS = [flat(0.5)] * 5
RULES: dict[str, tuple[Callable[[], Curve], Sequence[Peer], Stopping, str]] = {
    "overfit, leading": (overfits, [], only(overfit=True), "complete"),
    "overfit, behind": (overfits, [flat(0.3)] * 5, only(overfit=True), "pruned"),
    "plateau": (plateaus, [], only(plateau=True), "complete"),
    "behind": (lags, PEERS, only(behind=True), "pruned"),
    "diverged": (explodes, [], Stopping.off(), "failed"),
    "diverged, not finite": (breaks, [], Stopping.off(), "failed"),
}


@pytest.mark.parametrize("rule", RULES)
class TestEveryRule:
    def test_it_fires_at_the_end_of_the_curve_made_for_it_and_not_before(self, rule: str) -> None:
        make, peers, rules, outcome = RULES[rule]
        curve = make()
        verdict = first_verdict(curve, peers, rules)
        assert verdict is not None
        assert (verdict.kind, verdict.outcome, verdict.epoch) == (rule.split(",")[0], outcome, len(curve))
        assert verdict.kept == curve.best

    def test_all_rules_together_give_the_same_verdict(self, rule: str) -> None:
        make, peers, rules, _ = RULES[rule]
        every = ON.model_copy(update={"behind": rules.behind})  # who is behind was pruned before it overfits
        assert repr(first_verdict(make(), peers, every)) == repr(first_verdict(make(), peers, rules))

    def test_its_sentence_names_the_epochs_and_its_numbers_are_finite_words_of_json(self, rule: str) -> None:
        make, peers, rules, _ = RULES[rule]
        verdict = first_verdict(make(), peers, rules)
        assert verdict is not None
        assert f"epoch {verdict.epoch}" in verdict.reason
        assert verdict.numbers
        back = Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False)))
        assert repr(back) == repr(verdict)

    def test_switched_off_it_does_not_fire(self, rule: str) -> None:
        make, peers, rules, _ = RULES[rule]
        kind = rule.split(",")[0]
        off = {"behind": rules.behind, kind: False}
        verdict = first_verdict(make(), peers, ON.model_copy(update=off))
        assert (verdict is None) == (kind != "diverged")

    def test_it_never_fires_on_the_first_epoch(self, rule: str) -> None:
        _, peers, rules, _ = RULES[rule]
        for loss in (1e9, math.nan, math.inf):
            assert judge(MAKE([loss], budget=1), peers, rules) is None

    def test_before_the_first_epoch_that_is_judged_only_a_loss_that_is_not_finite_ends_a_trial(self, rule: str) -> None:
        make, peers, rules, _ = RULES[rule]
        curve = replace(make(), first=len(make()) + 1)
        verdict = first_verdict(curve, peers, rules)
        assert (verdict is not None) == (rule == "diverged, not finite")

    def test_at_the_first_epoch_that_is_judged_it_fires(self, rule: str) -> None:
        make, peers, rules, _ = RULES[rule]
        assert first_verdict(replace(make(), first=len(make())), peers, rules) is not None


LOSS = st.floats(0, 10) | st.sampled_from([math.nan, math.inf])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=40),
    st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=30), max_size=8),
    st.integers(1, 40),
)
def test_a_verdict_depends_only_on_the_past(
    series: list[tuple[float, float]], others: list[list[float]], end: int
) -> None:
    peers = [peer(MAKE(losses), pruned=i % 2 == 0) for i, losses in enumerate(others)]
    options = {"budget": 60, "rise_se": 0.05}
    whole = MAKE([val for val, _ in series], [train for _, train in series], **options)
    start = MAKE([val for val, _ in series[:end]], [train for _, train in series[:end]], **options)
    past = replace(whole, epochs=whole.epochs[:end])
    assert repr(judge(past, peers, ON)) == repr(judge(start, peers, ON))
    early, late = first_verdict(start, peers), first_verdict(whole, peers)
    assert early is None or repr(early) == repr(late)


def test_a_verdict_without_a_reason_cannot_be_made() -> None:
    for reason in ("", "  \n"):
        with pytest.raises(ValueError, match="a verdict needs a reason"):
            Verdict("plateau", "complete", 9, 3, {}, reason)


def test_a_finished_trial_is_complete_with_its_best_epoch() -> None:
    curve = MAKE([*FALLING, 0.6, 0.6])
    assert first_verdict(curve) is None
    verdict = finished(curve)
    assert (verdict.kind, verdict.outcome, verdict.epoch, verdict.kept) == ("finished", "complete", 8, 6)
    assert verdict.reason == "ran all 8 epochs, kept epoch 6: validation loss 0.5"
    assert set(KINDS) == {"overfit", "plateau", "behind", "diverged", "finished"}


def test_a_single_epoch_whose_loss_is_not_finite_does_not_finish() -> None:
    assert finished(MAKE([math.nan])).outcome == "failed"
    assert finished(MAKE([0.5])).outcome == "complete"


class TestDiverged:
    def test_three_times_the_loss_of_knowing_nothing_is_the_limit(self) -> None:
        assert first_verdict(explodes(6.001), rules=Stopping.off()) is not None
        assert first_verdict(explodes(6.0), rules=Stopping.off()) is None

    def test_two_epochs_over_the_limit_are_not_enough(self) -> None:
        assert first_verdict(MAKE([1.0] * 4 + [9.0, 9.0], budget=50), rules=Stopping.off()) is None
        assert first_verdict(MAKE([1.0] * 3 + [9.0, 5.0, 9.0, 9.0], budget=50), rules=Stopping.off()) is None

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
    def test_a_loss_of_either_series_that_is_not_finite_ends_a_trial_at_once(self, broken: float) -> None:
        for val, train in (([1.0, broken], [1.0, 1.0]), ([1.0, 1.0], [1.0, broken])):
            verdict = judge(MAKE(val, train, budget=50), [], Stopping.off())
            assert verdict is not None
            assert verdict.reason.startswith("diverged at epoch 2: the loss is not a finite number")

    def test_a_first_epoch_that_was_not_finite_is_found_at_the_second(self) -> None:
        verdict = judge(MAKE([math.nan, 1.0], budget=50), [], ON)
        assert verdict is not None
        assert (verdict.outcome, verdict.epoch) == ("failed", 2)


class TestOverfit:
    rules = only(overfit=True)

    def fires(self, **changed: Any) -> bool:
        return first_verdict(overfits(**changed), rules=self.rules) is not None

    def test_the_sentence_says_what_rose_and_what_fell(self) -> None:
        verdict = first_verdict(overfits(), rules=self.rules)
        assert verdict is not None
        assert verdict.reason == (
            "stopped at epoch 11, kept epoch 8: validation loss rose 24% over the 0.5 there (12.0 SE) "
            "while training loss fell 67%"
        )
        assert verdict.numbers == pytest.approx(
            {"rise": 0.24, "val_loss_best": 0.5, "val_loss": 0.62, "se": 12.0, "train_fell": 2 / 3}
        )

    def test_a_rise_of_ten_percent_is_the_limit(self) -> None:
        assert self.fires(late=[0.5, 0.5501, 0.5501, 0.5501], null=1.0)
        assert not self.fires(late=[0.5, 0.5499, 0.5499, 0.5499], null=1.0)

    def test_a_rise_of_two_percent_of_the_loss_of_knowing_nothing_is_the_limit(self) -> None:
        assert self.fires(null=0.119 / 0.02)
        assert not self.fires(null=0.121 / 0.02)

    def test_two_paired_standard_errors_are_the_limit(self) -> None:
        assert self.fires(rise_se=0.119 / 2)
        assert not self.fires(rise_se=0.121 / 2)

    def test_a_rise_that_every_example_shares_needs_no_standard_error(self) -> None:
        verdict = first_verdict(overfits(rise_se=0.0), rules=self.rules)
        assert verdict is not None
        assert "over the 0.5 there while training loss" in verdict.reason, "and none is made up"

    def test_the_training_loss_must_lie_below_its_value_at_the_best_epoch(self) -> None:
        fallen, level = 0.4 - 1e-6, 0.4
        start = [0.9 * loss for loss in FALLING] + [0.4, 0.4, 0.4, 0.4]
        assert self.fires(train=[*start, fallen])
        assert not self.fires(train=[*start, level])

    def test_all_three_epochs_lie_after_the_best(self) -> None:
        assert not self.fires(late=[0.9, 0.9])
        assert self.fires(late=[0.9, 0.9, 0.9])

    def test_one_bad_epoch_among_three_is_no_rise(self) -> None:
        assert not self.fires(late=[0.5, 0.5, 0.64])

    def test_who_leads_its_peers_is_kept_however_much_it_overfits(self) -> None:
        verdict = first_verdict(overfits(), [flat(0.6)] * 9, self.rules)
        assert verdict is not None
        assert (verdict.outcome, verdict.kept) == ("complete", 8)

    def test_who_is_behind_at_its_best_epoch_is_pruned_and_told_by_how_much(self) -> None:
        verdict = first_verdict(overfits(), [flat(0.3)] * 5, self.rules)
        assert verdict is not None
        assert verdict.reason.endswith("; pruned, not among the best 40 % there (0.3)")
        assert verdict.numbers["limit"] == 0.3

    def test_what_the_peers_reached_after_its_best_epoch_does_not_count(self) -> None:
        late = Peer((0.6,) * 8 + (0.1,) * 50, pruned=False)
        verdict = first_verdict(overfits(), [late] * 5, self.rules)
        assert verdict is not None
        assert verdict.outcome == "complete"


class TestPlateau:
    rules = only(plateau=True)

    @pytest.mark.parametrize(("budget", "patience"), [(20, 10), (66, 10), (67, 11), (100, 15), (101, 16), (200, 30)])
    def test_patience_is_ten_epochs_or_fifteen_percent_of_the_cap(self, budget: int, patience: int) -> None:
        val = [1.0] * max(5, math.ceil(budget / 10)) + [1.0] * 40
        verdict = first_verdict(MAKE(val, val, budget=budget), rules=self.rules)
        assert verdict is not None
        assert verdict.epoch - verdict.kept == patience

    def test_one_epoch_less_is_not_long_enough(self) -> None:
        assert first_verdict(plateaus(9), rules=self.rules) is None

    def test_the_sentence_says_how_long(self) -> None:
        verdict = first_verdict(plateaus(), rules=self.rules)
        assert verdict is not None
        assert (
            verdict.reason
            == "stopped at epoch 22, kept epoch 12: smoothed validation loss has not improved for 10 epochs"
        )


class TestBehind:
    rules = only(behind=True)

    def fires(self, curve: Curve, peers: Sequence[Peer]) -> bool:
        return judge(curve, peers, self.rules) is not None

    def test_the_sentence_names_the_limit_and_the_leader(self) -> None:
        verdict = judge(lags(), [flat(x) for x in (0.4, 0.5, 0.6, 0.7, 2.0)], self.rules)
        assert verdict is not None
        assert verdict.reason == (
            "pruned at epoch 5: best validation loss so far 1 isn't among the best 40 % of 5 trials there "
            "(0.56; leader 0.4)"
        )

    def test_it_needs_three_peers(self) -> None:
        assert self.fires(lags(), PEERS[:3])
        assert not self.fires(lags(), PEERS[:2])

    def test_it_needs_the_epochs_before_which_nothing_is_judged(self) -> None:
        assert not self.fires(MAKE([1.0] * 4, budget=50), PEERS)
        assert self.fires(MAKE([1.0] * 5, budget=50, se_val=0.01), PEERS)

    def test_two_fifths_of_the_peers_are_the_limit(self) -> None:
        below, above = [flat(0.1), flat(0.1)], [flat(1.1)] * 3
        assert self.fires(lags(), [*below, flat(0.999), flat(0.999), *above[:2]])
        assert not self.fires(lags(), [*below, flat(1.0), *above])

    def test_who_is_within_one_standard_error_of_the_leader_is_spared(self) -> None:
        peers = [flat(0.9)] * 5
        assert not self.fires(MAKE([1.0] * 6, budget=50, se_val=0.1), peers)
        assert self.fires(MAKE([1.0] * 6, budget=50, se_val=0.099), peers)

    def test_the_best_loss_so_far_counts_and_not_the_newest(self) -> None:
        assert not self.fires(MAKE([1.0, 0.4, 1.0, 1.0, 1.0, 1.0], budget=50), PEERS)

    def test_peers_are_compared_at_the_same_epoch(self) -> None:
        slow = Peer((2.0,) * 5 + (0.1,) * 50, pruned=False)
        assert not self.fires(lags(), [slow] * 5)
        assert self.fires(MAKE([1.0] * 6, budget=50), [slow] * 5)

    def test_a_peer_that_ended_counts_with_where_it_ended(self) -> None:
        assert self.fires(lags(), [flat(0.5, epochs=2)] * 5)

    def test_a_pruned_peer_counts_only_up_to_where_it_got(self) -> None:
        assert self.fires(lags(), [flat(0.5, epochs=5, pruned=True)] * 5)
        assert not self.fires(lags(), [flat(0.5, epochs=4, pruned=True)] * 5)

    def test_a_peer_without_an_epoch_does_not_count(self) -> None:
        assert Peer((), pruned=False).at(6) is None
        assert not self.fires(lags(), [*PEERS[:2], Peer((), pruned=False)])


def test_a_peer_is_the_lowest_loss_up_to_each_epoch() -> None:
    assert peer(MAKE([1.0, 0.5, 0.7, 0.4]), pruned=False) == Peer((1.0, 0.5, 0.5, 0.4), pruned=False)


def test_overfitting_is_told_before_a_plateau_and_a_plateau_before_being_behind() -> None:
    late = overfits(late=[0.62] * 10, train=[0.9 * loss for loss in FALLING] + [0.4, *([0.3] * 9), 0.1])
    behind = [flat(0.1)] * 5
    kinds = [judge(late, behind, rules) for rules in (ON, only(plateau=True, behind=True), only(behind=True))]
    assert [verdict.kind if verdict else "" for verdict in kinds] == ["overfit", "plateau", "behind"]


def test_a_trial_that_the_time_limit_ends_keeps_its_best_epoch_and_says_so(make_curve):
    verdict = timed_out(make_curve([1.0, 0.5, 0.6], budget=50))
    assert (verdict.kind, verdict.outcome, verdict.epoch) == ("finished", "complete", 3)
    assert verdict.reason.startswith("the time was up after epoch 3, kept epoch ")
    assert timed_out(make_curve([1.0, math.nan], budget=50)).outcome == "failed"


@pytest.mark.parametrize("peers", [[], [Peer((0.1,) * 60, False)] * 5])
def test_what_each_rule_would_have_done_by_itself_is_where_it_fires_first(make_curve: Any, peers: list[Peer]) -> None:
    falling = [1.0, 0.8, 0.6, 0.5, 0.45, 0.44]
    val = [*falling, *(0.46 + 0.03 * n for n in range(30))]
    curve = make_curve(val, [1 / n for n in range(1, len(val) + 1)], budget=60)
    found = alone(curve, peers)
    assert found.keys() == {"overfit", "plateau"} | ({"behind"} if peers else set())
    for kind, epoch in found.items():
        assert epoch is not None
        for t, fires in ((epoch - 1, False), (epoch, True)):
            rules = Stopping.off().model_copy(update={kind: True})
            verdict = judge(replace(curve, epochs=curve.epochs[:t]), peers, rules)
            assert (verdict is not None) == fires
    assert alone(make_curve([1.0 * 0.9**n for n in range(20)]), []) == {"overfit": None, "plateau": None}
