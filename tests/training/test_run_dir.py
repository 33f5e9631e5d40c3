"""One config for all starts of a run: what may change between them, and what may not."""

from pathlib import Path

import pytest

from lisa_video.config.load import load_config
from lisa_video.errors import UserError
from lisa_video.training.run_dir import check_unchanged, claim_run_dir, differences


@pytest.mark.parametrize(
    "override",
    [
        "training.max_steps=9",
        "training.log_every=7",
        "training.checkpoint_every=7",
        "training.keep_checkpoints=7",
        "training.micro_batch_size=7",
        "preview.every=7",
        "sampling.num_steps=7",
        "data.num_workers=1",
    ],
)
def test_what_may_change(tiny_config, override):
    assert differences(tiny_config(), tiny_config(override)) == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lr=0.5", "optimizer.lr: 0.001 -> 0.5"),
        ("seed=3", "seed: 0 -> 3"),
        ("training.precision=bf16", "training.precision: fp32 -> bf16"),
        ("training.zero_stage=2", "training.zero_stage: 1 -> 2"),
        ("data.size=[32,40]", "data.size: [32, 32] -> [32, 40]"),
        ("backbone.options.frames_per_chunk=2", "backbone.options.frames_per_chunk: None -> 2"),
    ],
)
def test_what_may_not_change_is_named_with_its_values(tiny_config, override, told):
    assert told in differences(tiny_config(), tiny_config(override))


def test_dropping_lisa_is_a_change(tiny_config):
    assert any(difference.startswith("lisa") for difference in differences(tiny_config(), tiny_config("lisa=null")))


def test_the_saved_config_is_a_config_and_follows_free_changes(tiny_config):
    config = tiny_config()
    run_dir = Path(config.run_dir)
    claim_run_dir(run_dir, config)
    assert load_config(run_dir / "config.yaml") == config
    longer = tiny_config("training.max_steps=9")
    claim_run_dir(run_dir, longer)
    assert load_config(run_dir / "config.yaml") == longer
    assert [path.name for path in run_dir.iterdir()] == ["config.yaml"]


def test_other_settings_are_refused_and_change_nothing(tiny_config):
    config = tiny_config()
    run_dir = Path(config.run_dir)
    check_unchanged(run_dir, config)  # a folder that does not exist yet
    claim_run_dir(run_dir, config)
    with pytest.raises(UserError, match=r"config.yaml: .*optimizer.lr: 0.001 -> 0.5.*Remedy: use another run_dir"):
        claim_run_dir(run_dir, tiny_config("optimizer.lr=0.5"))
    assert load_config(run_dir / "config.yaml") == config
