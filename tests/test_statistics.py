"""The error bars: exact small cases, and calibration over 1000 synthetic trials."""

import numpy as np
import pytest
from scipy import stats

from conservbench.statistics import (
    Interval,
    distance_change_interval,
    distance_from_interval,
    distance_interval,
    exponent_interval,
    fluctuations,
    fraction_interval,
    limit_interval,
    mean_interval,
    median_interval,
    ratio_interval,
    slope_interval,
    slopes,
)

N_TRIALS = 1000
# Binomial(1000, 0.95) has a standard deviation of 0.7 %: 93-97 % is +-2.9 sigma, a false-alarm rate of 0.4 % a seed.
COVERED = (930, 970)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], memory: float) -> np.ndarray:
    """Stationary AR(1) noise of unit variance."""
    noise = rng.normal(size=shape)
    series = np.empty(shape)
    series[:, 0] = noise[:, 0]
    for k in range(1, shape[1]):
        series[:, k] = memory * series[:, k - 1] + np.sqrt(1 - memory**2) * noise[:, k]
    return series


def test_mean_interval_equals_scipys_t_interval():
    samples = np.array([1.0, 2.0, 4.0, 8.0])
    low, high = stats.t.interval(0.95, 3, samples.mean(), stats.sem(samples))
    assert mean_interval(samples) == Interval(3.75, pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12), 4)


def test_mean_interval_of_one_sample_is_unbounded():
    assert mean_interval([2.0, np.nan]) == Interval(2.0, -np.inf, np.inf, 1)


def test_mean_interval_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no finite sample"):
        mean_interval([np.nan])


def test_slopes_equal_polyfit():
    rng = np.random.default_rng(0)
    times, series = np.sort(rng.uniform(0, 3, 20)), rng.normal(size=(5, 20))
    np.testing.assert_allclose(slopes(times, series), np.polyfit(times, series.T, 1)[0], rtol=1e-10)


def test_slope_of_a_broken_series_is_nan_and_left_out():
    series = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.0, np.nan, np.nan]])
    assert slope_interval([0, 1, 2], series).value == pytest.approx(1.5)
    assert slope_interval([0, 1, 2], series).n == 2


def test_fluctuation_ignores_the_trend():
    times = np.arange(4000)
    noise = np.random.default_rng(1).normal(size=(1, 4000))
    with_trend = fluctuations(times, noise + 5.0 * times)
    np.testing.assert_allclose(with_trend, fluctuations(times, noise), rtol=1e-6)
    # the standard deviation of 4000 normal values is known to 1.1 %: four sigma, false alarm 6e-5
    assert with_trend[0] == pytest.approx(1.0, abs=0.045)


@pytest.mark.parametrize("n_replicas", [3, 4, 8])
@pytest.mark.parametrize("memory", [0.0, 0.9, 0.99])
def test_slope_interval_covers_the_true_drift(n_replicas, memory):
    rng = np.random.default_rng([n_replicas, int(100 * memory)])
    times, drift = np.linspace(0, 1, 100), 0.7
    hits = sum(
        covers(slope_interval(times, drift * times + correlated_noise(rng, (n_replicas, 100), memory)), drift)
        for _ in range(N_TRIALS)
    )
    assert COVERED[0] <= hits <= COVERED[1]


def test_slope_interval_covers_a_random_walk_with_drift():
    """Non-conservative work adds up like a random walk: the hardest noise for a slope."""
    rng = np.random.default_rng(5)
    times = np.linspace(0, 1, 100)
    hits = 0
    for _ in range(N_TRIALS):
        walk = np.cumsum(rng.normal(size=(4, 100)) * 0.1, axis=1)
        hits += covers(slope_interval(times, 2.0 * times + walk), 2.0)
    assert COVERED[0] <= hits <= COVERED[1]


@pytest.mark.parametrize("n_groups", [3, 8])
def test_ratio_interval_covers_the_true_ratio(n_groups):
    rng = np.random.default_rng(n_groups)
    hits = 0
    for _ in range(N_TRIALS):
        bottom = rng.normal(10.0, 1.0, size=(n_groups, 4))
        top = 0.3 * bottom + rng.normal(0.0, 0.2, size=(n_groups, 4))
        hits += covers(ratio_interval(top, bottom), 0.3)
    assert COVERED[0] <= hits <= COVERED[1]


def test_ratio_interval_of_equal_groups_has_no_width():
    assert ratio_interval([1.0, 2.0, 3.0], [4.0, 8.0, 12.0]) == Interval(0.25, 0.25, 0.25, 3)


def test_ratio_needs_a_denominator():
    with pytest.raises(ValueError, match="the denominators sum to 0; a ratio needs a positive sum"):
        ratio_interval([1.0], [0.0])
    # such as a diffusion coefficient that its noise makes negative
    with pytest.raises(ValueError, match=r"the denominators sum to -0\.25"):
        ratio_interval([1.0, 1.0], [0.25, -0.5])


def test_exponent_of_a_power_law():
    x = np.array([0.5, 1.0, 2.0])
    interval = exponent_interval(x, np.array([[3.0], [5.0]]) * x**2)
    assert interval.value == pytest.approx(2.0, abs=1e-12)


def test_limit_removes_the_leading_order():
    x = np.array([1.0, 2.0, 3.0])
    interval = limit_interval(x, np.array([[0.2], [0.4]]) + 0.7 * x**2, power=2)
    assert interval.value == pytest.approx(0.3, abs=1e-12)
    assert interval.n == 2


def test_median_interval_has_the_ranks_of_the_binomial_table():
    """95 % intervals of the median by ranks: 1..6 of 6, 2..9 of 10, 6..15 of 20 (Conover, table of quantiles)."""
    for n, low, high in [(6, 1, 6), (10, 2, 9), (20, 6, 15)]:
        assert median_interval(np.arange(n, 0, -1)) == Interval((n + 1) / 2, low, high, n)
    assert median_interval([3.0, 1.0, np.nan, 2.0]) == Interval(2.0, -np.inf, np.inf, 3)
    with pytest.raises(ValueError, match="no finite sample"):
        median_interval([np.nan])


def test_median_interval_covers_a_skewed_median():
    rng = np.random.default_rng(5)
    covered = sum(covers(median_interval(rng.exponential(size=10)), np.log(2)) for _ in range(N_TRIALS))
    # ranks 2 and 9 of 10 enclose it with probability 97.9 %, standard deviation 0.5 %: false alarms 0.2 %
    assert 965 <= covered <= 992


def profiles(rng, n, shift, bins=20):
    """Paired profiles about 1 with noise of 0.1 of their difference, and the distance of their expectations."""
    references = 1.0 + 0.3 * rng.normal(size=(n, bins))
    return references + shift + 0.1 * rng.normal(size=(n, bins)), references


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_distance_of_means_has_no_bias(shift):
    rng = np.random.default_rng(6)
    values = [distance_interval(*profiles(rng, 4, shift)).value for _ in range(N_TRIALS)]
    # three standard errors, with the slight bias of the reference's own noise: false alarms 0.3 %
    error = np.std(values) / np.sqrt(N_TRIALS)
    expected = shift**2 / (1.0 + 0.3**2 / 4)
    assert abs(np.mean(values) - expected) < 3 * error + 0.01 * expected


@pytest.mark.parametrize(("n", "shift"), [(4, 0.05), (8, 0.05), (8, 0.2)])
def test_distance_interval_covers(n, shift):
    rng = np.random.default_rng(7)
    found = [distance_interval(*profiles(rng, n, shift)) for _ in range(N_TRIALS)]
    truth = shift**2 / (1.0 + 0.3**2 / n)
    assert sum(covers(each, truth) for each in found) >= COVERED[0]


def test_distance_is_exact_without_noise():
    reference = np.array([[1.0, 2.0, 0.0]] * 3)
    found = distance_interval(reference + np.array([0.0, 0.1, 0.2]), reference)
    assert found.value == pytest.approx(0.05 / 5.0)
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.01))
    assert distance_interval(reference[:2], reference[:2]) == Interval(0.0, -np.inf, np.inf, 2)
    lost = np.vstack((reference, [np.nan] * 3))
    assert distance_interval(lost, lost) == Interval(0.0, 0.0, 0.0, 3)
    for bad, said in [(reference[:1], "two replicas or more, got 1"), (0 * reference, "zero everywhere")]:
        with pytest.raises(ValueError, match=said):
            distance_interval(bad, bad)


# a reference at 40 points, with noise that is correlated over all of them, differently for replicas and for blocks
POINTS = np.linspace(0.0, 4.0, 40)
CURVE = 1.0 + np.exp(-((POINTS - 1.0) ** 2))
APART = POINTS[:, None] - POINTS
NEAR, FAR = (
    np.linalg.cholesky(covariance + 1e-9 * np.eye(40))
    for covariance in (np.exp(-(APART**2) / 0.16), np.exp(-np.abs(APART) / 1.5) * np.cos(2.0 * APART))
)
BUMP = np.exp(-((POINTS - 1.5) ** 2) / 0.3)
EXACT = np.tile(CURVE, (3, 1))


def curves(rng: np.random.Generator, n: int, offset: np.ndarray | float, noise: float) -> np.ndarray:
    return CURVE + offset + noise * rng.normal(size=(n, 40)) @ NEAR.T


def blocks(rng: np.random.Generator, n: int, noise: float) -> np.ndarray:
    """Blocks whose mean has this standard error."""
    return CURVE + noise * np.sqrt(n) * rng.normal(size=(n, 40)) @ FAR.T


def offset_of(distance: float) -> np.ndarray:
    return BUMP * np.sqrt(distance * (CURVE**2).sum() / (BUMP**2).sum())


@pytest.mark.parametrize("distance", [0.0, 1e-3])
def test_distance_from_a_noisy_reference_has_no_bias(distance):
    rng, found = np.random.default_rng(11), []
    for _ in range(N_TRIALS):
        samples = curves(rng, 4, offset_of(distance), 0.03)
        found.append(distance_from_interval([samples], [blocks(rng, 6, 0.02)]).value)
    # four standard errors of the mean of 1000: false alarm 6e-5; the noise left in would add 2e-4 and 1e-4
    error = np.std(found) / np.sqrt(N_TRIALS)
    assert np.mean(found) == pytest.approx(distance, abs=4 * error)
    assert error < 2.5e-5


@pytest.mark.parametrize(("n", "m"), [(6, 6), (8, 11)])
@pytest.mark.parametrize("distance", [0.0, 3e-4, 3e-3])
def test_interval_of_a_distance_from_a_noisy_reference_covers(n, m, distance):
    rng, trials, hits, change_hits = np.random.default_rng(12), 300, 0, 0
    for _ in range(trials):
        reference = blocks(rng, m, 0.01)
        before, after = (curves(rng, n, offset_of(each * distance), 0.03) for each in (0.25, 1.0))
        hits += covers(distance_from_interval([after], [reference]), distance)
        change_hits += covers(distance_change_interval([after], [before], [reference]), 0.75 * distance)
    # measured 91 % or more of many trials, with six blocks and noise along the difference: 86 % is three standard
    # deviations of 300 below, a false alarm in 1000
    assert min(hits, change_hits) >= 0.86 * trials


def test_the_noise_of_the_reference_along_the_difference_is_in_the_interval():
    """Without replicas' noise L = |off - noise|^2: of variance 4 d.C d, which a short correlation underestimates."""
    rng, distance = np.random.default_rng(15), 0.01
    exact = np.tile(CURVE + offset_of(distance), (4, 1))
    found = [distance_from_interval([exact], [blocks(rng, 11, 0.005)]) for _ in range(300)]
    d, scale = offset_of(distance), (CURVE**2).sum()
    error = 2.0 * 0.005 * np.linalg.norm(FAR.T @ d) / scale
    # the scatter of 300 is known to 4 %, four of these: false alarm 6e-5; the square of the reference adds 2 %
    assert np.std([each.value for each in found]) == pytest.approx(error, rel=0.18)
    # t of ten degrees of freedom is 2.23
    assert np.mean([each.high - each.value for each in found]) == pytest.approx(2.23 * error, rel=0.1)


def test_distance_from_an_exact_reference_is_exact_without_noise():
    samples = np.tile(CURVE + offset_of(0.02), (5, 1))
    found = distance_from_interval([samples], [EXACT])
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == (pytest.approx(0.02), pytest.approx(0.02))


def test_change_of_a_distance_is_the_difference_of_two():
    rng = np.random.default_rng(13)
    first, second = curves(rng, 5, offset_of(0.01), 0.03), curves(rng, 5, offset_of(0.002), 0.03)
    reference = blocks(rng, 7, 0.01)
    change = distance_change_interval([first], [second], [reference]).value
    apart = [distance_from_interval([each], [reference]).value for each in (first, second)]
    assert change == pytest.approx(apart[0] - apart[1], rel=1e-9)
    assert distance_change_interval([first], [first], [reference]) == Interval(0.0, 0.0, 0.0, 5)


def test_distance_under_several_conditions_is_the_mean():
    rng = np.random.default_rng(14)
    samples, references = (
        [curves(rng, 6, offset_of(each), 0.03) for each in (0.01, 0.03)],
        [blocks(rng, m, 0.01) for m in (6, 9)],
    )
    found = distance_from_interval(samples, references)
    apart = [distance_from_interval([mine], [wanted]) for mine, wanted in zip(samples, references, strict=True)]
    assert found.value == pytest.approx(0.5 * (apart[0].value + apart[1].value))
    assert found.n == 6


def test_conditions_with_one_reference_share_its_noise():
    rng = np.random.default_rng(16)
    samples, reference = curves(rng, 6, offset_of(0.01), 0.001), blocks(rng, 8, 0.01)
    once = distance_from_interval([samples], [reference])
    twice = distance_from_interval([samples, samples], [reference, reference])
    assert (twice.low, twice.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_distance_from_a_reference_needs_two_replicas_two_blocks_and_a_reference():
    with pytest.raises(ValueError, match="two replicas or more, got 1"):
        distance_from_interval([[CURVE, np.nan * CURVE]], [EXACT])
    with pytest.raises(ValueError, match="two blocks or more, got 1"):
        distance_from_interval([EXACT], [EXACT[:1]])
    with pytest.raises(ValueError, match="zero everywhere"):
        distance_from_interval([EXACT], [0 * EXACT])
    assert distance_from_interval([EXACT[:2]], [EXACT]).high == np.inf
    assert distance_from_interval([EXACT], [EXACT[:2]]).high == np.inf


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (1, 8), (5, 8), (8, 8), (30, 100)])
def test_fraction_interval_is_that_of_the_binomial_test(hits, n):
    found, exact = fraction_interval(hits, n), stats.binomtest(hits, n).proportion_ci()
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
