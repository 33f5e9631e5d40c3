"""CUDA graphs: on a GPU a captured model trains to the numbers of the eager one."""

from __future__ import annotations

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.training.trainer import Trainer


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("arm", [[], ["lisa=null"]])
def test_captured_training_equals_eager_training(tiny_config, arm) -> None:
    def losses(*overrides: str) -> list[float]:
        trainer = Trainer(tiny_config(*arm, "training.gradient_accumulation=1", *overrides))
        trainer.run()
        return [float(p.detach().double().sum()) for p in trainer.model.trainable.parameters()]

    eager, replayed = losses("run_dir=eager"), losses("run_dir=replayed", "training.cuda_graphs=true")
    assert replayed == pytest.approx(eager, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("needs", ["lisa.every=2", "training.gradient_accumulation=2"])
def test_settings_that_graphs_cannot_serve_are_refused(tiny_config, needs) -> None:
    with pytest.raises(UserError, match="cuda_graphs"):
        tiny_config("training.cuda_graphs=true", needs)
