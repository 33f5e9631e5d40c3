"""The frozen base of an experiment: from new weights or from the embedded ones, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.models.build import build_backbone, build_denoiser
from lisa_video.pretraining.frozen_base import FrozenBase, train_frozen_base

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tiny_manifest, tmp_path) -> RunConfig:
    """A run of the small benchmark on tiny clips, whose base is to be made."""
    file = tmp_path / "run.yaml"
    data = {"manifest": str(tiny_manifest), "num_frames": 4, "frame_stride": 1}
    small = {"extends": str(ROOT / "configs/benchmark/small_run.yaml"), "backbone": {"path": str(tmp_path / "base")}}
    file.write_text(yaml.safe_dump({**small, "data": data}))
    return load_config(file)


@pytest.mark.parametrize("size", ["embedded", "small"])
def test_a_base_is_trained_from_the_embedded_one_or_from_new_weights(size, run) -> None:
    embedded = build_backbone(load_config(ROOT / "configs/quickstart.yaml").backbone).backbone.state_dict()
    out = train_frozen_base(run, FrozenBase(size=size, steps=2, batch=1))
    trained = build_backbone(run.backbone).backbone.state_dict()
    assert trained.keys() == embedded.keys()
    moved = max(float((trained[name] - value).abs().max()) for name, value in embedded.items())
    assert 0 < moved < 0.01 if size == "embedded" else moved > 0.01  # two steps move a weight by two thousandths
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert record["recipe"]["steps"] == 2 and ("unet" in record["recipe"]) == (size == "embedded")


def test_a_base_may_be_deeper_or_shallower(run) -> None:
    recipe = FrozenBase(size="small", layers_per_block=1, steps=1, batch=1)
    record = json.loads((train_frozen_base(run, recipe) / "training.json").read_text(encoding="utf-8"))
    assert record["recipe"]["layers_per_block"] == 1
    parts = build_backbone(run.backbone)
    assert [len(block.resnets) for block in parts.backbone.unet.up_blocks] == [2] * 4
    hooked = load_config(Path(run.backbone.path).with_name("run.yaml"), ["lisa.layer=down_7"])
    assert build_denoiser(hooked, parts).decoder is not None  # the last of its 8 skips
    with pytest.raises(UserError, match="another recipe"):
        train_frozen_base(run, recipe.model_copy(update={"layers_per_block": 2}))
    with pytest.raises(ValueError, match="take size small"):
        FrozenBase(size="embedded", layers_per_block=4)


def test_a_base_that_is_there_is_left_alone_and_another_one_is_not_taken_for_it(run, tiny_manifest) -> None:
    recipe = FrozenBase(size="embedded", steps=1, batch=1)
    record = train_frozen_base(run, recipe) / "training.json"
    before = record.stat().st_mtime_ns
    train_frozen_base(run, recipe)
    assert record.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another recipe"):
        train_frozen_base(run, recipe.model_copy(update={"steps": 2}))
    other = tiny_manifest.with_name("other.jsonl")
    other.write_text("".join(tiny_manifest.read_text().splitlines(keepends=True)[:-1]))
    moved = run.model_copy(update={"data": run.data.model_copy(update={"manifest": str(other)})})
    with pytest.raises(UserError, match="another manifest_digest"):
        train_frozen_base(moved, recipe)
    other.unlink()
    record.unlink()  # some checkpoint of the user's own
    with pytest.raises(UserError, match=r"inputs\.frozen_base=null"):
        train_frozen_base(run, recipe)
