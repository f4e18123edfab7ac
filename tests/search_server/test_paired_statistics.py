"""Paired statistics against scipy and against independent simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from search_server.noise_floor import deviation_limit, residual
from search_server.paired_statistics import holm, paired
from search_server.power import detectable_gain, power, seeds_needed
from search_server.shrinkage import shrunken


class TestPaired:
    @pytest.mark.parametrize("count", [2, 4, 11])
    def test_p_and_interval_are_those_of_scipy(self, count):
        rng = np.random.default_rng(count)
        own, base = rng.uniform(size=(2, count))
        found = paired(dict(enumerate(own)), dict(enumerate(base)))
        test = stats.ttest_rel(own, base)
        assert found.p == pytest.approx(test.pvalue, rel=1e-9)
        interval = test.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)

    def test_equal_differences(self):
        same = paired({1: 0.25, 2: 0.5}, {1: 0.25, 2: 0.5})
        assert (same.mean, same.p, same.low, same.high) == (0.0, 1.0, 0.0, 0.0)
        better = paired({1: 0.5, 2: 0.75}, {1: 0.25, 2: 0.5})
        assert (better.mean, better.p, better.low) == (0.25, 0.0, 0.25)
        assert paired({1: 0.5}, {1: 0.25}).p is None


class TestHolm:
    def test_a_worked_example(self):
        # 4 x 0.01; 3 x 0.02; the larger of that and 2 x 0.03; 1 x 0.5
        assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])

    def test_edges(self):
        assert holm([]) == []
        assert holm([0.04]) == [0.04]
        assert holm([0.9, 0.8]) == [1.0, 1.0]

    def test_it_keeps_the_family_wise_error_where_single_tests_do_not(self):
        """Five candidates without any gain share a baseline; one false find in 20 families."""
        rng = np.random.default_rng(5)
        noise = rng.normal(size=(3000, 6, 5))
        ps = stats.ttest_1samp(noise[:, 1:] - noise[:, :1], 0, axis=2).pvalue
        assert np.mean(ps.min(axis=1) < 0.05) > 0.10
        assert np.mean([min(holm(list(family))) < 0.05 for family in ps]) < 0.06


def trained(rng, gains, seeds):
    """Differences by seed of candidates with some true gains; a seed's effect and the baseline's
    noise are in them as in real ones."""
    own = gains[:, None] + rng.normal(size=(len(gains), seeds)) + 3 * rng.normal(size=seeds)
    base = rng.normal(size=seeds) + 3 * rng.normal(size=seeds)
    return [dict(enumerate(row)) for row in own - base]


class TestShrunken:
    @pytest.mark.parametrize(("candidates", "seeds", "spread"), [(3, 4, 0.5), (6, 6, 0.4)])
    def test_closer_to_the_truth_and_the_best_is_not_overrated(self, candidates, seeds, spread):
        rng = np.random.default_rng(candidates)
        raw_errors, errors, raw_best, best = [], [], [], []
        for _ in range(2000):
            gains = 0.5 + spread * rng.normal(size=candidates)
            noise = rng.normal(size=(candidates + 1, seeds))
            values = gains[:, None] + noise[1:] - noise[0]
            found = np.array(shrunken([dict(enumerate(row)) for row in values]))
            raw = values.mean(axis=1)
            raw_errors.append((raw - gains) ** 2)
            errors.append((found - gains) ** 2)
            top = raw.argmax()
            assert found.argmax() == top or np.ptp(found) < 1e-12
            raw_best.append(raw[top] - gains[top])
            best.append(found[top] - gains[top])
        assert np.mean(errors) < 0.97 * np.mean(raw_errors)
        assert np.mean(raw_best) > 0.2  # the winner's luck, in units of one trial's deviation
        assert abs(np.mean(best)) < 0.25 * np.mean(raw_best)

    def test_clear_differences_are_left_alone(self):
        rng = np.random.default_rng(0)
        gains = np.array([0.0, 100.0, 300.0])
        values = trained(rng, gains, 6)
        raw = [np.mean(list(each.values())) for each in values]
        assert shrunken(values) == pytest.approx(raw, rel=0.01)

    def test_noise_alone_shrinks_to_the_common_mean(self):
        values = [{0: 1.0, 1: -1.0}, {0: -1.0, 1: 1.0}, {0: 0.1, 1: -0.1}]
        assert shrunken(values) == pytest.approx([0.0, 0.0, 0.0])

    def test_few(self):
        assert shrunken([]) == []
        assert shrunken([{3: 0.25, 4: 0.75}]) == [0.5]
        assert shrunken([{1: 0.2}, {1: 0.4}]) == [None, None]  # no telling what is noise
        assert shrunken([{1: 0.2, 2: 0.3}, {}]) == [0.25, None]


class TestResidual:
    def test_seed_effects_are_no_noise(self):
        rng = np.random.default_rng(1)
        effect, deviation = 5 * rng.normal(size=40), 0.3
        own = effect + deviation * rng.normal(size=(5, 40)) + np.arange(5)[:, None]
        found = residual([dict(enumerate(row)) for row in own])
        assert found.freedom == 4 * 39
        assert found.paired_deviation == pytest.approx(deviation * math.sqrt(2), rel=0.12)

    def test_two_losses_give_the_deviation_of_their_difference(self):
        own, base = {0: 0.5, 1: 0.4, 2: 0.45}, {0: 0.3, 1: 0.35, 2: 0.2, 9: 1.0}
        found = residual([own, base])
        differences = [own[seed] - base[seed] for seed in own]
        assert found.paired_deviation == pytest.approx(np.std(differences, ddof=1))
        assert (found.freedom, found.seeds) == (2, 3)
        assert residual([own]) is None
        assert residual([own, {0: 0.1, 9: 0.2}]) is None

    def test_the_limit_holds_as_often_as_it_says(self):
        rng = np.random.default_rng(2)
        found = np.std(rng.normal(size=(4000, 5)), axis=1, ddof=1)
        limits = found * deviation_limit(1.0, 4)
        assert np.mean(limits > 1) == pytest.approx(0.8, abs=0.02)


class TestPower:
    @pytest.mark.parametrize(
        ("gain", "seeds", "level"),
        [(1.0, 5, 0.05), (0.7, 12, 0.05 / 3), (20.0, 2, 0.05), (5.0, 3, 0.02)],
    )
    def test_against_a_simulation(self, gain, seeds, level):
        rng = np.random.default_rng(seeds)
        values = gain + 1.3 * rng.normal(size=(20_000, seeds))
        found = np.mean(stats.ttest_1samp(values, 0, axis=1).pvalue < level)
        assert power(gain, 1.3, seeds, level) == pytest.approx(found, abs=0.012)

    def test_the_seeds_needed_are_the_fewest(self):
        for gain in (0.3, 1.0, 4.0, 60.0):
            seeds = seeds_needed(gain, 1.0)
            assert power(gain, 1.0, seeds) >= 0.8
            assert seeds == 2 or power(gain, 1.0, seeds - 1) < 0.8
        # the textbook's paired t test with an effect of half a deviation: 34 pairs
        assert seeds_needed(0.5, 1.0) == 34
        assert seeds_needed(1e-6, 1.0) is None
        assert seeds_needed(1.0, 0.0) == 2

    def test_the_detectable_gain_turns_it_around(self):
        gain = detectable_gain(0.8, 7, 0.05 / 3)
        assert power(gain, 0.8, 7, 0.05 / 3) == pytest.approx(0.8, abs=1e-6)
        assert detectable_gain(0.0, 7) == 0.0

    def test_no_gain_needs_no_seeds(self):
        with pytest.raises(ValueError, match="above 0"):
            seeds_needed(0.0, 1.0)
