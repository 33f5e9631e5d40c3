"""The objective: terms by hand, a LISA target without gradient, and a baseline that is LISA of weight 0."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from lisa_video.conditioning import EncodedBatch
from lisa_video.diffusion.edm import EDMProcess
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.models.backbone import Condition
from lisa_video.models.build import build_denoiser
from lisa_video.models.controlled import Prediction
from lisa_video.objective import LISAWeight, Objective, loss_terms


def objective(weight: float = 0.2, seed: int = 0) -> Objective:
    return Objective(EDMProcess(), LogNormalSigma(), LISAWeight(weight), seed)


def encoded(positions: tuple[int, ...]) -> EncodedBatch:
    """Each clip a function of its position."""
    clips = []
    for position in positions:
        g = torch.Generator().manual_seed(position)
        clips.append(
            (
                torch.randn(2, 4, 8, 8, generator=g),
                torch.randn(4, 8, 8, generator=g),
                torch.randn(1, 64, generator=g),
                torch.rand(2, 3, 32, 32, generator=g),
            )
        )
    latents, image_latents, embedding, pose_maps = (torch.stack(parts) for parts in zip(*clips, strict=True))
    time_ids = torch.tensor([[6.0, 127.0, 0.02]] * len(positions))
    return EncodedBatch(latents, Condition(image_latents, embedding, time_ids), pose_maps, positions)


@pytest.fixture
def lisa_model(tiny_config, tiny_parts):
    model = build_denoiser(tiny_config("lisa.last_init=default"), tiny_parts)
    torch.manual_seed(1)
    for conv in [*model.branch.zero_convs, model.branch.zero_conv_mid]:
        conv.reset_parameters()
    return model


@pytest.fixture
def without_decoder(lisa_model, tiny_config, tiny_parts):
    model = build_denoiser(tiny_config("lisa=null"), tiny_parts)
    model.branch.load_state_dict(lisa_model.branch.state_dict())
    return model


def branch_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.branch.named_parameters() if p.grad is not None}


def assert_equal_gradients(a, b):
    assert a and a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def constant(*values: float) -> torch.Tensor:
    """(1, F, 1, 1, 1), one value a frame."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)


def test_terms_by_hand():
    # target 1, 1; m = 3, 1; m0 = 0, 3; D = 1, 1
    prediction = Prediction(constant(3, 1), constant(0, 3), constant(1, 1))
    terms = loss_terms(prediction, constant(1, 1), torch.ones(1), weight=0.5)
    assert terms.denoising.tolist() == [(2**2 + 0) / 2]
    assert terms.residual.tolist() == [[1, 4]]  # (1 - 0)^2, (1 - 3)^2
    assert terms.lisa.tolist() == [[0, 9]]  # (1 - 1)^2, (1 - (-2))^2
    assert terms.total.item() == 2 + 0.5 * 4.5


def test_terms_of_the_baseline_by_hand():
    terms = loss_terms(Prediction(constant(3, 1), None, None), constant(1, 1), torch.ones(1), weight=0.5)
    assert terms.total.item() == 2 and terms.lisa.tolist() == terms.residual.tolist() == [[0, 0]]


def test_every_term_is_a_mean_over_its_numbers():
    torch.manual_seed(0)
    controlled, frozen, lisa, target = torch.randn(4, 3, 2, 4, 5, 6).unbind()
    terms = loss_terms(Prediction(controlled, frozen, lisa), target, torch.ones(3), weight=0.2)
    mse = torch.nn.functional.mse_loss
    torch.testing.assert_close(terms.total, mse(controlled, target) + 0.2 * mse(lisa, target - frozen))
    torch.testing.assert_close(terms.denoising[1], mse(controlled[1], target[1]))
    torch.testing.assert_close(terms.lisa[1, 0], mse(lisa[1, 0], (target - frozen)[1, 0]))


def test_lisa_target_carries_no_gradient():
    controlled, frozen, lisa, target = (torch.randn(1, 2, 1, 2, 2, requires_grad=True) for _ in range(4))
    terms = loss_terms(Prediction(controlled, frozen, lisa), target, torch.ones(1), weight=1.0)
    (terms.total - (controlled - target).square().mean()).backward()
    assert frozen.grad is None or frozen.grad.count_nonzero() == 0
    torch.testing.assert_close(target.grad, torch.zeros_like(target), rtol=0, atol=1e-6)
    torch.testing.assert_close(lisa.grad, 2 * (lisa - target + frozen).detach() / lisa.numel())


def test_reported_terms_hold_no_graph(lisa_model):
    terms = objective()(lisa_model, encoded((0, 1)))
    assert terms.total.requires_grad
    assert not any(t.requires_grad for t in (terms.denoising, terms.lisa, terms.residual, terms.sigma))


def test_lisa_gradient_is_that_of_a_precomputed_target(lisa_model):
    batch, law = encoded((0, 1)), objective()
    sigma, noise = law.draw(batch)
    x_s, target = law.process.add_noise(batch.latents, noise, sigma), law.process.target(batch.latents, noise, sigma)
    with torch.no_grad():
        frozen = lisa_model(x_s, sigma, batch.condition, None).controlled
    precomputed = (target - frozen).clone()

    def lisa_output():
        return lisa_model(x_s, sigma, batch.condition, batch.pose_maps).lisa

    by_hand = branch_gradients(lisa_model, 0.2 * (lisa_output() - precomputed).square().mean(dim=(2, 3, 4)).mean())
    prediction = lisa_model(x_s, sigma, batch.condition, batch.pose_maps)
    ours = loss_terms(prediction._replace(controlled=target), target, sigma, 0.2).total
    assert_equal_gradients(branch_gradients(lisa_model, ours), by_hand)


def test_lisa_moves_the_branch(lisa_model):
    batch = encoded((0, 1))
    with_lisa = branch_gradients(lisa_model, objective(0.2)(lisa_model, batch).total)
    without = branch_gradients(lisa_model, objective(0.0)(lisa_model, batch).total)
    name = "pose_encoder.conv_in.weight"
    assert not torch.allclose(with_lisa[name], without[name])


def test_weight_zero_has_exactly_the_gradients_of_the_baseline(lisa_model, without_decoder):
    batch = encoded((0, 1))
    a = branch_gradients(lisa_model, objective(0.0)(lisa_model, batch).total)
    b = branch_gradients(without_decoder, objective(0.2)(without_decoder, batch).total)
    assert_equal_gradients(a, b)


def test_baseline_loss_is_the_denoising_term_of_lisa(lisa_model, without_decoder):
    batch = encoded((0, 1))
    lisa, baseline = objective()(lisa_model, batch), objective()(without_decoder, batch)
    assert torch.equal(lisa.denoising, baseline.denoising) and torch.equal(lisa.sigma, baseline.sigma)
    assert torch.equal(baseline.total, baseline.denoising.mean())
    assert (baseline.lisa == 0).all() and baseline.lisa.shape == lisa.lisa.shape == (2, 2)
    torch.testing.assert_close(lisa.total, lisa.denoising.mean() + 0.2 * lisa.lisa.mean())


def test_fresh_decoder_explains_nothing_yet(tiny_config, tiny_parts):
    terms = objective()(build_denoiser(tiny_config(), tiny_parts), encoded((0, 1)))
    assert torch.equal(terms.lisa, terms.residual) and (terms.residual > 0).all()


def test_perfect_predictions_cost_nothing():
    target, frozen = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    terms = loss_terms(Prediction(target, frozen, target - frozen), target, torch.ones(2), weight=0.2)
    assert terms.total.item() == 0 and (terms.residual > 0).all()


def test_draws_depend_on_seed_and_position_only():
    sigma, noise = objective().draw(encoded((5, 6, 7)))
    other_sigma, other_noise = objective().draw(encoded((7, 5)))
    assert torch.equal(sigma[[2, 0]], other_sigma) and torch.equal(noise[[2, 0]], other_noise)
    moved_sigma, moved_noise = objective(seed=1).draw(encoded((5, 6, 7)))
    assert (moved_sigma != sigma).all() and not torch.equal(moved_noise, noise)
    assert sigma.shape == (3,) and noise.shape == (3, 2, 4, 8, 8)


def test_frames_of_a_clip_have_noise_of_their_own():
    _, noise = objective().draw(encoded((5,)))
    assert not torch.equal(noise[0, 0], noise[0, 1])


def test_one_draw_serves_input_and_target():
    """A model that inverts x_s with the true latents finds exactly the target."""
    batch, seen = encoded((0, 1)), []

    class Oracle(torch.nn.Module):
        def forward(self, x_s, sigma, condition, pose_maps):
            noise = (x_s - batch.latents) / sigma.view(-1, 1, 1, 1, 1)
            seen.append((sigma, condition, pose_maps))
            return Prediction(EDMProcess().target(batch.latents, noise, sigma), None, None)

    terms = objective()(Oracle(), batch)
    assert terms.total.item() < 1e-9
    sigma, condition, pose_maps = seen[0]
    assert torch.equal(sigma, terms.sigma) and condition is batch.condition and pose_maps is batch.pose_maps


def test_loss_of_a_clip_does_not_depend_on_its_batch(lisa_model):
    with torch.no_grad():
        together, alone = (objective()(lisa_model, encoded(p)) for p in ((3, 4), (4,)))
    torch.testing.assert_close(together.denoising[1:], alone.denoising, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.lisa[1:], alone.lisa, rtol=1e-4, atol=1e-5)


def test_few_steps_lower_both_losses(lisa_model):
    model, batch = copy.deepcopy(lisa_model), encoded((0, 1))
    optimizer = torch.optim.AdamW(model.trainable.parameters(), lr=1e-3)
    history = []
    for _ in range(6):
        terms = objective()(model, batch)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        history.append((terms.denoising.mean().item(), terms.lisa.mean().item()))
    assert history[-1][0] < history[0][0] and history[-1][1] < history[0][1]


def test_the_weight_of_lisa_falls_over_the_run_and_favours_noise() -> None:
    sigma, positions = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0, 50, 200])
    assert LISAWeight(0.2)(sigma, positions).tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert LISAWeight(0.2, decay_samples=100)(sigma, positions).tolist() == pytest.approx([0.2, 0.1, 0.0])
    noisy = LISAWeight(0.2, favours_noise=True)(sigma, positions)
    assert noisy.tolist() == pytest.approx([0.2 * 0.25 / 1.25, 0.2 * 0.5, 0.2 * 4 / 5])


def test_each_clip_has_its_own_weight() -> None:
    controlled, lisa, frozen, target = (torch.zeros(2, 1, 1, 1, 1) for _ in range(4))
    lisa[1] = 3.0
    terms = loss_terms(Prediction(controlled, frozen, lisa), target, torch.ones(2), torch.tensor([1.0, 0.1]))
    assert float(terms.total) == pytest.approx((0 * 1.0 + 9 * 0.1) / 2)


def test_every_second_micro_batch_weighs_twice_and_the_others_are_the_baseline(lisa_model, without_decoder):
    batch, always = encoded((0, 1)), objective()
    sometimes = dataclasses.replace(always, lisa_every=2)
    whole, doubled, plain = always(lisa_model, batch), sometimes(lisa_model, batch, 4), sometimes(lisa_model, batch, 5)
    lisa_part = whole.total - whole.denoising.mean()
    torch.testing.assert_close(doubled.total, whole.total + lisa_part)
    assert plain.lisa.count_nonzero() == plain.residual.count_nonzero() == 0
    gradients = branch_gradients(lisa_model, plain.total)
    assert_equal_gradients(gradients, branch_gradients(without_decoder, always(without_decoder, batch).total))
