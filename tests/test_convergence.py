"""The convergence benchmark: its arms are the trainer's, whatever it does to be fast."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from click.testing import Result
from typer.testing import CliRunner

from benchmarks.convergence.__main__ import _arms, _races, app
from benchmarks.convergence.race import Arm, Race
from eval.experiments.benchmark import BenchmarkConfig, load_benchmark
from eval.runs.generate import held_out_clips
from lisa_video.config.load import load_config
from lisa_video.data.batch import collate
from lisa_video.errors import UserError
from lisa_video.models.build import build_backbone, build_denoiser
from lisa_video.objective import build_lisa_weight, loss_terms
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pretraining.clips_in_memory import load_clips
from lisa_video.pretraining.draws import Draws
from lisa_video.training.muon import Muon

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(
    path for path in (ROOT / "configs/benchmark").glob("*.yaml") if not path.stem.endswith(("_run", "_inputs"))
)
_SETTINGS = (
    "data.flip_probability=0",
    "training.gradient_accumulation=1",
    "training.gradient_checkpointing=false",
    "optimizer.warmup_samples=0",
    "optimizer.clip_norm=0.01",
)


@pytest.fixture
def race(tiny_config):
    """`race("lisa=null", ...)` -> config, parts and a race of one arm."""

    def build(*overrides: str) -> SimpleNamespace:
        config, device = tiny_config(*_SETTINGS, *overrides), torch.device("cpu")
        parts = build_backbone(config.backbone)
        draws = Draws(config, parts, load_clips(config.data, "train", parts.codec, device), config.seed)
        return SimpleNamespace(config=config, parts=parts, race=Race(draws, {"arm": Arm(config, parts, device)}))

    return build


@pytest.mark.parametrize(
    "overrides",
    [
        ("lisa=null",),
        ("lisa.last_init=default", "lisa.noise_weight=noisy"),
        ("optimizer.kind=muon", "training.zero_stage=0"),
        ("optimizer.warmup_samples=3",),
    ],
)
def test_a_step_of_an_arm_is_the_models_loss_clipped_and_stepped_by_its_optimizer(race, overrides) -> None:
    ours = race(*overrides)
    config, settings = ours.config, ours.config.optimizer
    drawn = ours.race.draws()
    ours.race.draws.restart()
    ours.race.steps(1)

    model = build_denoiser(config, ours.parts)
    average = [p.detach().clone() for p in model.branch.parameters()]
    trained = [p for p in model.parameters() if p.requires_grad]
    common = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
    kind = {"adamw": torch.optim.AdamW, "muon": Muon}[settings.kind]
    warm = 1 / (settings.warmup_samples + 1)
    optimizer = kind(trained, settings.lr * warm, **common)
    prediction = model(drawn.x_s, drawn.sigma, drawn.condition, drawn.pose_maps)
    weight = build_lisa_weight(config.lisa)(drawn.sigma, drawn.positions)
    loss_terms(prediction, drawn.target, drawn.sigma, weight).total.backward()
    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimizer.step()
    decay = min(settings.ema_decay, (1 + 1) / (10 + 1))

    arm = ours.race.arms["arm"]
    for own, other in zip(arm.branch, model.branch.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-7)
    for own, first, now in zip(arm.average, average, model.branch.parameters(), strict=True):
        torch.testing.assert_close(own, decay * first + (1 - decay) * now.detach(), rtol=1e-4, atol=1e-7)


def test_the_rate_of_an_arm_rises_and_falls_as_the_trainers(race) -> None:
    ours, rates = race("training.max_steps=4", "optimizer.warmup_samples=3", "optimizer.cooldown=0.5"), []
    for _ in range(4):
        ours.race.steps(1)
        rates.append(float(ours.race.arms["arm"].optimizer.param_groups[0]["lr"]) / ours.config.optimizer.lr)
    assert rates == pytest.approx([0.25, 0.75, 1, 0.5])


def test_an_arm_with_lisa_on_every_second_step_has_twice_its_weight_there_and_none_between(race) -> None:
    twice, between = race("lisa.weight=0.4", "lisa.every=1"), race("lisa.every=2")
    for arm in (twice, between):  # the decoder's gradient is LISA's alone, and the branch's has its share
        arm.race.steps(1)
    for own, other in zip(between.race.arms["arm"].parameters, twice.race.arms["arm"].parameters, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    between.race.steps(1)
    decoder = between.race.arms["arm"].model.decoder
    assert all(not p.grad.any() for p in decoder.parameters())
    between.race.steps(1)
    assert any(p.grad.any() for p in decoder.parameters())


def test_a_race_tells_each_step_that_is_done(race) -> None:
    done: list[int] = []
    ours = race()
    ours.race.steps(2, lambda: done.append(int(ours.race.arms["arm"].steps)))
    assert done == [1, 2]


def test_the_same_seed_draws_the_same_steps_again_and_another_seed_does_not(race, tiny_config) -> None:
    ours = race("lisa=null")
    draws = ours.race.draws
    first, second = draws(), draws()
    draws.restart()
    again = draws()
    assert torch.equal(first.x_s, again.x_s) and torch.equal(first.sigma, again.sigma)
    assert not torch.equal(first.sigma, second.sigma)
    assert not torch.equal(Draws(ours.config, ours.parts, draws.clips, ours.config.seed + 1)().sigma, first.sigma)


def test_arms_of_another_noise_distribution_race_by_themselves_on_the_same_clips(race) -> None:
    ours = race("lisa=null")
    configs = [ours.config, _with_mean(ours.config, 0.7), _with_mean(ours.config, 2.0)]
    arms = {str(n): Arm(config, ours.parts, torch.device("cpu")) for n, config in enumerate(configs)}
    first, second = _races(arms, lambda config: Draws(config, ours.parts, ours.race.draws.clips, config.seed))
    assert list(first.arms) == ["0", "1"] and list(second.arms) == ["2"]
    drawn, noisier = first.draws(), second.draws()
    assert torch.equal(drawn.pose_maps, noisier.pose_maps)
    assert noisier.sigma.log() == pytest.approx((drawn.sigma.log() + 1.3).numpy(), abs=1e-5)


def _with_mean(config, mean: float):
    return config.model_copy(update={"noise": config.noise.model_copy(update={"mean": mean})})


def test_an_arm_that_is_always_told_the_pose_sees_the_same_noise_as_one_that_never_is(race) -> None:
    ours = race("lisa=null")
    configs = [_with_pose_dropout(ours.config, p) for p in (1.0, 0.0)]
    arms = {str(n): Arm(config, ours.parts, torch.device("cpu")) for n, config in enumerate(configs)}
    races = _races(arms, lambda config: Draws(config, ours.parts, ours.race.draws.clips, config.seed))
    never, always = (of.draws() for of in races)
    assert not never.pose_maps.any() and always.pose_maps.any(dim=(1, 2, 3, 4)).all()
    assert torch.equal(never.x_s, always.x_s) and torch.equal(never.sigma, always.sigma)


def _with_pose_dropout(config, p: float):
    return config.model_copy(update={"conditioning": config.conditioning.model_copy(update={"pose_dropout": p})})


def test_arms_that_differ_in_what_a_race_shares_are_refused(tiny_config_file) -> None:
    settings = BenchmarkConfig(
        title="t", base=str(tiny_config_file), out="o", arms={"a": [], "b": ["sampling.num_steps=3"]}, seeds=(0,)
    )
    with pytest.raises(UserError, match="differs from the first arm in sampling"):
        _arms(settings, "m", 0, [])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_arms_of_the_shipped_experiments_can_race(path) -> None:
    settings = load_benchmark(path)
    arms = _arms(settings, "m", 0, [])
    assert len(arms) > 1 and next(iter(arms.values())).lisa is None, "the first arm is the one to compare with"


@pytest.fixture
def experiment(tiny_config_file, tmp_path):
    """File of an experiment of two arms, two steps and two checkpoints."""
    file = tmp_path / "experiment.yaml"
    settings = {
        "title": "which?", "base": str(tiny_config_file), "out": str(tmp_path / "out"), "seeds": [0, 1],
        "arms": {"plain": ["lisa=null"], "lisa": []}, "checkpoints": 2, "eval_clips": 2,
        "overrides": [*_SETTINGS, "training.max_steps=2"], "detectors": ["keypoint_net"],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return file


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_an_experiment_from_training_to_numbers_and_figure(experiment, tiny_manifest, tmp_path) -> None:
    stale = tmp_path / "out/seed-0/plain"
    stale.mkdir(parents=True)
    (stale / "curve.jsonl").write_text('{"step": 7}\n', encoding="utf-8")  # of a run that was killed
    for asked in (["--seed", 0], ["--seed", 1, "--arm", "lisa"], ["--seed", 1]):
        assert _run("train", experiment, "--manifest", tiny_manifest, *asked).exit_code == 0
    facts = {arm: json.loads((tmp_path / f"out/seed-1/{arm}/run.json").read_text()) for arm in ("plain", "lisa")}
    assert facts["plain"]["trained_together"] == ["plain"], "the arm that was finished was left alone"
    assert facts["plain"]["finished"] and facts["lisa"]["steps"] == 2
    again = _run("train", experiment, "--manifest", tiny_manifest, "--seed", 1)
    assert "done already" in again.output
    assert _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json").exit_code == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    plain, lisa = found["arms"]
    for arm in (plain, lisa):
        loss = arm["held-out loss"]
        assert loss["steps"] == arm["PCK@0.1"]["steps"] == arm["pose gap"]["steps"] == [0, 1, 2]
        assert arm["pose gap"]["value"][0] == 0.0 != arm["pose gap"]["value"][-1]
        assert loss["value"] == pytest.approx(np.mean(loss["per_seed"], axis=0))
        assert [[row["step"] for row in rows] for rows in arm["losses"]] == [[1, 2]] * 2  # of each seed
        frozen, last = loss["value"][0], loss["value"][-1]
        # The mean of the levels' ratios is not quite the ratio of their means.
        assert np.mean(arm["levels"][-1]) == pytest.approx(last / frozen, rel=0.05)
    assert plain["held-out loss"]["value"][0] == lisa["held-out loss"]["value"][0]  # the frozen network alone
    assert plain["held-out loss"]["value"][-1] != lisa["held-out loss"]["value"][-1]
    over = lisa["held-out loss"]["over"]["plain"]
    assert over["speed_up"]["target"] == plain["held-out loss"]["value"][-1]
    assert list(over["speed_up_if_ended_at"]) == ["1", "2"]
    assert over["speed_up_if_ended_at"]["2"] == over["speed_up"]["ratio"]
    gaps = np.subtract(lisa["held-out loss"]["value"], plain["held-out loss"]["value"])
    assert over["difference"]["value"] == pytest.approx(gaps) and over["difference"]["low"][0] == 0
    assert (tmp_path / "found.png").stat().st_size > 10_000

    run = tmp_path / "out/seed-1/lisa"  # can be sampled and scored as any run
    batch = collate(list(held_out_clips(load_config(run / "config.yaml"), 2)))
    video = PoseVideoPipeline.from_run(run)(batch.reference, batch.pose_maps, batch.fps, seed=0, keys=batch.clip_ids)
    assert np.abs(np.load(run / "videos.npz")["videos"].astype(int) - video.numpy()).max() <= 1

    _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "second.json", "--skip", 1)
    second = json.loads((tmp_path / "second.json").read_text(encoding="utf-8"))
    kept = np.load(tmp_path / "out/seed-0/lisa/found-000002.npz")["errors"]
    assert second["protocol"]["held_out_clips"] == 1
    assert second["arms"][1]["held-out loss"]["per_seed"][0][-1] == pytest.approx(kept[1].mean())


def test_an_arm_does_not_depend_on_its_company_or_on_who_comes_first(experiment, tiny_manifest, tmp_path) -> None:
    files = [tmp_path / "out/seed-0" / arm / "found-000002.npz" for arm in ("plain", "lisa")]
    _run("train", experiment, "--manifest", tiny_manifest)
    together = [np.load(file)["errors"] for file in files]
    shutil.rmtree(tmp_path / "out")
    settings = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    settings["arms"] = {"noisier": ["noise.mean=2.0"], **settings["arms"]}
    experiment.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    for arm in ("lisa", "plain"):
        _run("train", experiment, "--manifest", tiny_manifest, "--arm", arm)
    for file, errors in zip(files, together, strict=True):
        assert np.array_equal(np.load(file)["errors"], errors)


def test_arms_of_a_race_that_was_stopped_are_compared_at_the_steps_that_both_have(
    experiment, tiny_manifest, tmp_path
) -> None:
    _run("train", experiment, "--manifest", tiny_manifest)
    (tmp_path / "out/seed-0/lisa/found-000002.npz").unlink()  # killed before it was written
    (tmp_path / "out/seed-1/plain").mkdir(parents=True)  # killed before its first checkpoint
    _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["protocol"]["seeds"] == [0]
    plain, lisa = (arm["pose gap"] for arm in found["arms"])
    _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "one.json", "--arm", "lisa")
    (alone,) = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))["arms"]
    assert alone["arm"] == "lisa" and alone["pose gap"]["value"] == lisa["value"] and alone["pose gap"]["over"] == {}
    assert plain["steps"] == [0, 1, 2] and lisa["steps"] == [0, 1]
    assert lisa["over"]["plain"]["difference"]["steps"] == plain["over"]["lisa"]["difference"]["steps"] == [0, 1]


def test_seeds_that_went_further_can_be_scored_alone(experiment, tiny_manifest, tmp_path) -> None:
    _run("train", experiment, "--manifest", tiny_manifest)
    _run("train", experiment, "--manifest", tiny_manifest, "--seed", 1, "--override", "training.max_steps=4")
    for number, (chosen, steps) in enumerate((((), [0, 2]), (("--seed", 1), [0, 2, 4]))):
        out = tmp_path / f"{number}.json"
        _run("results", experiment, "--manifest", tiny_manifest, "--out", out, *chosen)
        found = json.loads(out.read_text(encoding="utf-8"))
        assert found["arms"][1]["pose gap"]["steps"] == steps
        assert found["protocol"]["seeds"] == ([1] if chosen else [0, 1]) and len(found["runs"]) == 2 - number


def test_arms_that_were_not_trained_alike_are_not_compared(experiment, tiny_manifest, tmp_path) -> None:
    for arm, frames in (("plain", 3), ("lisa", 2)):
        changed = ("--override", f"data.num_frames={frames}")
        _run("train", experiment, "--manifest", tiny_manifest, "--arm", arm, *changed)
    with pytest.raises(UserError, match="trained with another data than"):
        _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json")


def test_an_arm_that_ended_sooner_is_compared_as_far_as_it_went(experiment, tiny_manifest, tmp_path) -> None:
    _run("train", experiment, "--manifest", tiny_manifest, "--arm", "plain")
    sooner = ("--override", "training.max_steps=1", "--override", "training.zero_stage=0")  # no matter to a race
    _run("train", experiment, "--manifest", tiny_manifest, "--arm", "lisa", *sooner)
    out = tmp_path / "found.json"
    scored = _run("results", experiment, "--manifest", tiny_manifest, "--out", out, "--samples")
    found = json.loads(out.read_text(encoding="utf-8"))
    plain, lisa = (arm["pose gap"] for arm in found["arms"])
    assert plain["steps"] == [0, 1, 2] and lisa["steps"] == [0, 1]
    over = lisa["over"]["plain"]
    assert over["difference"]["steps"] == [0, 1]
    assert over["final_difference"]["value"] == pytest.approx(lisa["value"][1] - plain["value"][2])
    assert list(found["samples"]["measures"]["Fréchet"]["arms"]) == ["plain", "floor"]
    assert "at step 1 " in scored.output and out.with_suffix(".png").is_file()


def test_the_last_samples_are_scored_by_further_measures(experiment, tiny_manifest, tmp_path) -> None:
    for seed in (0, 1):
        _run("train", experiment, "--manifest", tiny_manifest, "--seed", seed)
    scored = _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json", "--samples")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["samples"]["step"] == 2
    frechet, pck = found["samples"]["measures"].values()
    assert list(frechet["arms"]) == ["plain", "lisa", "floor"] and len(frechet["arms"]["floor"]) == 1
    for place, arm in enumerate(("plain", "lisa")):
        # The same detector as the curve's, by another road.
        assert [of["value"] for of in pck["arms"][arm]] == [
            row[-1] for row in found["arms"][place]["PCK@0.1"]["per_seed"]
        ]
        assert all(of["value"] > 0 and of["low"] <= of["value"] <= of["high"] for of in frechet["arms"][arm])
    assert frechet["protocol"]["clips"] == 2 and "Fréchet at step 2:" in scored.output

    kept = tmp_path / "out/seed-1/lisa/videos.npz"
    np.savez(kept, **{**np.load(kept), "step": 1})  # as if its race had been stopped before the others
    with pytest.raises(UserError, match=r"has samples of step 1"):
        _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json", "--samples")


def test_results_without_a_checkpoint_are_refused(experiment, tiny_manifest, tmp_path) -> None:
    with pytest.raises(UserError, match="no step at which plain was examined with every seed"):
        _run("results", experiment, "--manifest", tiny_manifest, "--out", tmp_path / "found.json")


def test_an_unknown_arm_is_refused_with_the_known_ones(experiment, tiny_manifest) -> None:
    with pytest.raises(UserError, match="one of: plain, lisa"):
        _run("train", experiment, "--manifest", tiny_manifest, "--arm", "lissa")
