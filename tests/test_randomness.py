"""Random numbers are functions of (seed, key, purpose) and of nothing else."""

from __future__ import annotations

import torch

from lisa_video.randomness import generator, normal, uniform


def test_numbers_do_not_depend_on_the_batch_that_they_are_drawn_in():
    together = normal((2, 3), 7, [4, 9, 11], "noise")
    assert torch.equal(together[[2, 0]], normal((2, 3), 7, [11, 4], "noise"))
    assert torch.equal(uniform(7, [4, 9, 11], "sigma")[1:], uniform(7, [9, 11], "sigma"))


def test_seed_key_and_purpose_each_change_the_numbers():
    base = normal((64,), 0, [1], "noise")
    for other in (normal((64,), 1, [1], "noise"), normal((64,), 0, [2], "noise"), normal((64,), 0, [1], "sigma")):
        assert (other != base).all()


def test_seed_and_key_are_not_run_together():
    assert not torch.equal(normal((8,), 1, [23], "noise"), normal((8,), 12, [3], "noise"))


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    state, first = torch.get_rng_state(), normal((8,), 0, ["clip-1"], "sampling")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(normal((8,), 0, ["clip-1"], "sampling"), first)


def test_a_key_of_the_run_gives_the_same_number_for_ever():
    # Recorded: a change here makes every resumed run differ from an uninterrupted one.
    assert torch.rand((), generator=generator(0, 0, "sigma"), dtype=torch.float64).item() == 0.8405932571316848


def test_distributions():
    keys = range(4000)
    u = uniform(0, keys, "sigma")
    assert u.dtype == torch.float32 and (u > 0).all() and (u < 1).all()
    torch.testing.assert_close(
        torch.quantile(u, torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), rtol=0, atol=0.03
    )
    n = normal((8,), 0, keys, "noise")
    assert abs(n.mean()) < 0.02 and abs(n.std() - 1) < 0.02
