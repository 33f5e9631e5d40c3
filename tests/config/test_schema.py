"""The tree of settings: strict, fixed, with the published defaults and its cross-section rules."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from lisa_video.config.schema import RunConfig


def config(**changes) -> RunConfig:
    return RunConfig.model_validate({"run_dir": "runs/x", "data": {"manifest": "m.jsonl"}} | changes)


def test_defaults_are_the_published_settings():
    default = config()
    assert default.lisa is not None
    assert (default.lisa.layer, default.lisa.weight, default.lisa.last_init) == ("down_5", 0.2, "zero")
    assert (default.noise.distribution, default.noise.mean, default.noise.std) == ("lognormal", 0.7, 1.6)
    assert (default.conditioning.image_dropout, default.conditioning.noise_aug_strength) == (0.1, 0.02)
    assert default.optimizer.lr == 1e-5 and default.optimizer.betas == (0.9, 0.999)
    assert default.optimizer.weight_decay == 1e-2 and default.optimizer.clip_norm == 1.0
    assert (default.sampling.guidance_first, default.sampling.guidance_last) == (1.0, 3.0)
    assert (default.sampling.sigma_min, default.sampling.sigma_max) == (0.002, 700.0)


def test_lisa_null_is_the_baseline():
    assert config(lisa=None).lisa is None


def test_variant_paper_is_the_published_lisa():
    paper = config(lisa={"variant": "paper", "layer": "mid"}).lisa
    assert paper is not None and paper.layer == "mid"
    assert {name: getattr(paper, name) for name in paper.PUBLISHED} == paper.PUBLISHED
    assert config(lisa={"variant": "paper", "weight": 0.2}).lisa is not None  # says the same
    with pytest.raises(ValidationError, match="variant: paper leaves no choice of weight, last_init"):
        config(lisa={"variant": "paper", "weight": 1.0, "last_init": "default"})


def test_settings_are_fixed_once_read():
    with pytest.raises(ValidationError, match="frozen"):
        config().optimizer.lr = 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"sigma_min": 2.0, "sigma_max": 1.0}}, "sigma_min must be below"),
        (
            {"sampling": {"unconditional_pose": "blank"}, "conditioning": {"pose_dropout": 0.0}},
            "needs conditioning.pose_dropout",
        ),
        ({"conditioning": {"image_dropout": 0.0}}, "needs conditioning.image_dropout"),
        ({"data": {"manifest": "m", "num_frames": 1}}, "at least 2"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"optimizer": {"lr": 0}}, "greater than 0"),
        ({"optimizer": {"lr": float("nan")}}, "finite"),
        ({"optimizer": {"ema_decay": 1.0}}, "less than 1"),
        ({"conditioning": {"pose_dropout": 1.5}}, "less than or equal to 1"),
        ({"training": {"zero_stage": 4}}, "Input should be 0, 1, 2 or 3"),
        ({"training": {"precision": "fp16"}}, "'fp32' or 'bf16'"),
        ({"optimizer": {"kind": "muon"}, "training": {"zero_stage": 2}}, "muon needs training.zero_stage 0"),
        ({"data": {"manifest": "m", "size": [64]}}, "Field required"),
        ({"typo": 1}, "Extra inputs"),
    ],
)
def test_rules_are_enforced(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"guidance_last": 1.0}, "conditioning": {"image_dropout": 0.0, "pose_dropout": 0.0}},
        {"sampling": {"unconditional_pose": "blank"}},
        {"conditioning": {"pose_dropout": 0.0}},
        {"sampling": {"unconditional_pose": "none"}, "conditioning": {"image_dropout": 0.0, "pose_dropout": 0.0}},
    ],
)
def test_rules_let_sound_settings_pass(changes):
    config(**changes)


def test_condition_dropout_bands_fit_into_one():
    # One uniform number serves three bands of width p.
    with pytest.raises(ValidationError, match="image_dropout"):
        config(conditioning={"image_dropout": 0.4})


def test_every_section_refuses_unknown_keys():
    def sections(model: type[BaseModel]):
        yield model
        for field in model.model_fields.values():
            for part in [field.annotation, *getattr(field.annotation, "__args__", ())]:
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from sections(part)

    found = list(sections(RunConfig))
    assert len(found) >= 12
    assert all(s.model_config["extra"] == "forbid" and s.model_config["frozen"] for s in found)
