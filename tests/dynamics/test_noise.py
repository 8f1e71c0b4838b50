"""Random numbers: one stream a replica, fixed by seed and number."""

import torch

from conservbench.dynamics.noise import Noise


def test_a_stream_is_its_own_whatever_is_drawn_beside_it():
    together, alone = Noise(1), Noise(1)
    first = together([0, 4, 2], [3, 5, 2])
    second = together([2, 4], [2, 5])
    assert torch.equal(torch.cat((first[3:8], second[2:])), torch.cat((alone([4], [5]), alone([4], [5]))))


def test_seeds_and_replicas_differ():
    draws = [Noise(seed)([replica], [4]) for seed in (0, 1) for replica in (0, 1)]
    assert len({float(draw[0, 0]) for draw in draws}) == 4
    assert draws[0].dtype == torch.float64


def test_numbers_are_normal_and_uncorrelated_between_replicas():
    draw = Noise(0)([0, 1], [4000, 4000])
    one, other = draw[:4000].flatten(), draw[4000:].flatten()
    # 12000 numbers, standard error 0.009 of a mean or a correlation: four sigma, false alarm 6e-5 each
    assert abs(float(one.mean())) < 0.037
    assert abs(float((one * other).mean())) < 0.037
    assert abs(float(one.square().mean()) - 1) < 0.052
