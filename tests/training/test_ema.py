"""The moving average: where it starts, its closed form, and that it goes on where it stopped."""

import pytest
import torch

from lisa_video.training.ema import MovingAverage

STAGES = (0, 1, 2, 3)


def whole(average) -> torch.Tensor:
    """The four values of the average."""
    return torch.cat(list(average.whole().values()))


def copy_of(average) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in average.whole().items()}


@pytest.mark.parametrize("stage", STAGES)
def test_closed_form_with_warm_up(two_weights, step, stage):
    engine = two_weights(f"training.zero_stage={stage}", "optimizer.lr=0.1", "optimizer.weight_decay=0.5")
    average = MovingAverage(engine, 0.25)
    assert torch.equal(whole(average), torch.ones(4))  # the module's own values
    expected = torch.ones(4)
    for number, gradient in enumerate(((1, -1, 2, -3), (-1, 4, 1, 1), (0, 0, 1, 1), (5, 5, 5, -5)), start=1):
        weights = step(engine, gradient)
        average.update()
        decay = min(0.25, (1 + number) / (10 + number))  # 2/11, 3/12, then the limit
        expected = decay * expected + (1 - decay) * weights
        torch.testing.assert_close(whole(average), expected)
    assert average.steps == 4


@pytest.mark.parametrize("stage", STAGES)
def test_in_bf16_it_averages_the_float32_masters(two_weights, step, stage):
    engine = two_weights(
        "training.precision=bf16", f"training.zero_stage={stage}", "optimizer.lr=0.0005", "optimizer.weight_decay=0"
    )
    average = MovingAverage(engine, 0.0)  # the average is the last weights
    assert torch.equal(step(engine, (1, 1, 1, 1)), torch.ones(4))  # bfloat16 cannot see the step
    average.update()
    torch.testing.assert_close(whole(average), torch.full((4,), 0.9995), rtol=0, atol=1e-6)


def test_the_module_has_it_for_a_while(two_weights, step):
    engine = two_weights("optimizer.lr=0.1")
    average = MovingAverage(engine, 0.9)
    own = step(engine, (1, 1, 1, 1))
    average.update()
    with average.in_module():
        assert torch.equal(torch.cat([engine.model.a, engine.model.b]), whole(average))
    assert torch.equal(torch.cat([engine.model.a, engine.model.b]), own)


def test_state_goes_on_where_it_stopped(two_weights, step):
    engine = two_weights("optimizer.lr=0.1")
    first = MovingAverage(engine, 0.9)
    step(engine, (1, 2, 3, 4))
    first.update()
    second = MovingAverage(engine, 0.9)
    second.load(first.steps, copy_of(first))
    for average in (first, second):
        average.update()
    assert first.steps == second.steps == 2
    assert torch.equal(whole(first), whole(second))


def test_state_of_other_parameters_is_refused(two_weights):
    average = MovingAverage(two_weights(), 0.9)
    state = copy_of(average)
    del state["b"]
    with pytest.raises(RuntimeError, match="'b'"):
        average.load(0, state)
