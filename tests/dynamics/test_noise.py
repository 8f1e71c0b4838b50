"""Random numbers: one stream a replica, fixed by seed and number."""

import torch

from conservbench.dynamics.noise import Noise


def test_a_stream_is_its_own_whatever_is_drawn_beside_it():
    together, alone = Noise(1), Noise(1)
    first = together([0, 4, 2], [3, 5, 2])
    second = together([2, 4], [2, 5])
    assert torch.equal(torch.cat((first[3:8], second[2:])), torch.cat((alone([4], [5]), alone([4], [5]))))


def test_seeds_replicas_and_stages_differ():
    draws = [Noise(seed, stage)([replica], [4]) for seed in (0, 1) for replica in (0, 1) for stage in (0, 1, 2)]
    assert len({float(draw[0, 0]) for draw in draws}) == 12
    assert draws[0].dtype == torch.float64


def test_numbers_are_normal_and_uncorrelated_between_replicas():
    draw = Noise(0)([0, 1], [4000, 4000])
    one, other = draw[:4000].flatten(), draw[4000:].flatten()
    # 12000 numbers, standard error 0.009 of a mean or a correlation: four sigma, false alarm 6e-5 each
    assert abs(float(one.mean())) < 0.037
    assert abs(float((one * other).mean())) < 0.037
    assert abs(float(one.square().mean()) - 1) < 0.052


def test_draws_of_any_kind_come_from_the_same_stream():
    together, alone = Noise(1), Noise(1)
    first = together.normal([0, 4], 3), together.chi_squared([0, 4], [20.0, 20.0]), together([0, 4], [2, 2])
    again = alone.normal([4], 3), alone.chi_squared([4], [20.0]), alone([4], [2])
    assert torch.equal(first[0][1], again[0][0])
    assert first[1][1] == again[1][0]
    assert torch.equal(first[2][2:], again[2])


def test_chi_squared_numbers_have_their_moments():
    draw = Noise(3).chi_squared(list(range(4000)), [20.0] * 4000)
    # mean 20 and variance 40 of 4000 numbers: four sigma, false alarm 6e-5 each
    assert abs(float(draw.mean()) - 20.0) < 4 * (40 / 4000) ** 0.5
    assert abs(float(draw.var()) / 40.0 - 1) < 4 * (2.6 / 4000) ** 0.5
