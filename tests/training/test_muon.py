"""Muon: what a step does to matrices, kernels and vectors, and that runs with it go on with the same bits."""

import math

import pytest
import torch
from torch import nn

from lisa_video.training import muon
from lisa_video.training.muon import Muon, orthogonalised


def singular_values_after(values):
    """The quintic of Jordan et al. five times over: what Newton-Schulz does to each singular value."""
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


def by_svd(matrix):
    """What `orthogonalised` returns, the long way."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u * singular_values_after(s / s.square().sum().sqrt()) @ v).float()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8), (1, 5), (5, 1)])
def test_all_directions_get_the_same_size(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrix)
    assert found.shape == matrix.shape
    torch.testing.assert_close(found, by_svd(matrix), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(orthogonalised(1e-4 * matrix), found, rtol=1e-2, atol=1e-3)
    if min(shape) > 1 and shape[0] != shape[1]:  # a square one may have a singular value near 0
        assert 0.6 < torch.linalg.svdvals(found).min() and torch.linalg.svdvals(found).max() < 1.3


def test_nothing_stays_nothing():
    assert not orthogonalised(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("shape", [(4, 6), (6, 2, 3, 3), (4, 4, 3, 1, 1), (64, 3, 3, 3)])
def test_two_steps_of_a_weight_follow_the_formula(shape):
    random = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(*shape, generator=random) for _ in range(3))
    weight = nn.Parameter(start.clone())
    optimizer = Muon([weight], lr=0.01, momentum=0.9, weight_decay=0.5)
    expected, momentum = start, torch.zeros(shape)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = by_svd((0.1 * gradient + 0.9 * momentum).reshape(shape[0], -1))
        size = 0.01 * 0.2 * math.sqrt(max(direction.shape))
        expected = (1 - 0.01 * 0.5) * expected - size * direction.reshape(shape)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(weight.grad, gradient)


def test_weights_of_one_shape_step_as_they_do_alone(monkeypatch):
    random = torch.Generator().manual_seed(0)
    shapes = [(4, 18), (4, 2, 3, 3), (3, 5), (4, 18), (4, 18)]
    weights = [nn.Parameter(torch.randn(*shape, generator=random)) for shape in shapes]
    gradients = [10.0**-n * torch.randn(*shape, generator=random) for n, shape in enumerate(shapes)]
    alone = [nn.Parameter(weight.detach().clone()) for weight in weights]
    monkeypatch.setattr(muon, "_STACKED", 3 * 4 * 18)
    assert [len(same) for same in muon.of_one_shape(weights)] == [3, 1, 1]
    for optimizer in (Muon(weights, lr=0.1), *(Muon([weight], lr=0.1) for weight in alone)):
        for _ in range(2):
            for weight, gradient in zip((*weights, *alone), (*gradients, *gradients), strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
    for together, by_itself in zip(weights, alone, strict=True):
        torch.testing.assert_close(together, by_itself, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(muon, "_STACKED", 1)
    assert [len(same) for same in muon.of_one_shape(weights)] == [1] * 5


def test_a_step_is_as_large_as_adamws_at_the_same_rate():
    random = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(64, 32, 3, 3)) for _ in range(2))
    optimizers = [Muon([ours], lr=1e-3), torch.optim.AdamW([theirs], lr=1e-3)]
    for _ in range(50):  # noise alone: AdamW's steps are 0.2 to 0.4 of the rate (Liu et al.)
        ours.grad = theirs.grad = torch.randn(ours.shape, generator=random)
        before = [p.detach().clone() for p in (ours, theirs)]
        for optimizer in optimizers:
            optimizer.step()
    sizes = [(p.detach() - old).square().mean().sqrt() / 1e-3 for p, old in zip((ours, theirs), before, strict=True)]
    assert 0.15 < sizes[0] < 0.25 and 0.5 < sizes[1] / sizes[0] < 2


def test_vectors_step_as_adamw_makes_them():
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.5}
    optimizers = [Muon([ours], **settings), torch.optim.AdamW([theirs], **settings)]
    for gradient in torch.randn(4, 5, generator=torch.Generator().manual_seed(0)):
        for p, optimizer in zip((ours, theirs), optimizers, strict=True):
            p.grad = gradient.clone()
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_what_has_no_gradient_stays_and_groups_have_rates_of_their_own():
    still, slow, fast = (nn.Parameter(torch.ones(2, 3)) for _ in range(3))
    groups = [{"params": [still, slow], "lr": 0.001}, {"params": [fast], "lr": 0.01}]
    slow.grad, fast.grad = torch.ones(2, 3), torch.ones(2, 3)
    Muon(groups, lr=1.0, weight_decay=0).step()
    assert torch.equal(still, torch.ones(2, 3))
    torch.testing.assert_close(1 - fast, 10 * (1 - slow), rtol=1e-3, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_goes_on_with_the_same_bits(train, same_bits, precision):
    settings = ("optimizer.kind=muon", "training.zero_stage=0", f"training.precision={precision}")
    settings += ("training.checkpoint_every=3", "diagnostics.held_out_every=0")
    whole = train("whole", *settings, "training.max_steps=6")
    optimizer = whole.trainer.engine._deepspeed.optimizer
    assert isinstance(getattr(optimizer, "optimizer", optimizer), Muon)
    train("parts", *settings, "training.max_steps=3")
    parts = train("parts", *settings, "training.max_steps=6")
    same_bits(parts, whole)
    adamw = train("adamw", *settings[1:], "training.max_steps=6")
    assert adamw.losses != whole.losses
