"""The moving average: where it starts, its closed form, and that the module gets its own values back."""

import pytest
import torch
from torch import nn

from lisa_video.training.ema import MovingAverage


@pytest.fixture
def module() -> nn.Module:
    """A linear map with values of its own."""
    torch.manual_seed(3)
    return nn.Linear(3, 2)


def set_all(module: nn.Module, value: float) -> None:
    """Set every parameter to a number."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_it_starts_from_the_modules_own_values_in_float32(module):
    average = MovingAverage(module.to(torch.bfloat16), 0.9)
    for name, parameter in module.named_parameters():
        assert average.values[name].dtype == torch.float32
        assert torch.equal(average.values[name], parameter.float())
        assert average.values[name].data_ptr() != parameter.data_ptr()


def test_closed_form_with_warm_up(module):
    set_all(module, 0.0)
    average, expected = MovingAverage(module, 0.25), 0.0
    for step, value in enumerate((1.0, -2.0, 5.0, 0.5), start=1):
        set_all(module, value)
        average.update(module)
        decay = min(0.25, (1 + step) / (10 + step))  # 2/11, 3/12, then the limit
        expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.values["weight"], torch.full((2, 3), expected))
    assert average.steps == 4


def test_swapping_restores_the_exact_bits(module):
    average = MovingAverage(module, 0.9)
    set_all(module, 0.1)
    average.update(module)
    own = [parameter.clone() for parameter in module.parameters()]
    with average.swapped_into(module):
        assert torch.equal(module.weight, average.values["weight"])
        assert not torch.equal(module.weight, own[0])
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), own, strict=True))


def test_swapping_restores_after_an_exception(module):
    average = MovingAverage(module, 0.9)
    set_all(module, 0.1)
    with pytest.raises(KeyError), average.swapped_into(module):
        raise KeyError
    assert torch.equal(module.weight, torch.full((2, 3), 0.1))


def test_state_goes_on_where_it_stopped(module):
    first = MovingAverage(module, 0.9)
    set_all(module, 2.0)
    first.update(module)
    second = MovingAverage(module, 0.9)
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.update(module)
    assert first.steps == second.steps == 2
    assert torch.equal(first.values["bias"], second.values["bias"])


def test_state_of_other_parameters_is_refused(module):
    state = MovingAverage(nn.Linear(3, 2, bias=False), 0.9).state_dict()
    with pytest.raises(RuntimeError, match="bias"):
        MovingAverage(module, 0.9).load_state_dict(state)
