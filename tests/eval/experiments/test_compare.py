"""Scores of real tiny runs, and their comparison in one report."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from eval.bootstrap import Estimate
from eval.experiments.compare import compare, shown_places
from eval.json_files import without_nan
from eval.pose_accuracy.scores import ClipScore, Scores
from eval.runs.evaluation import Measures, evaluate
from eval.runs.generate import GenerationJob, generate, held_out_clips, load_generated
from eval.runs.held_out_loss import held_out_loss
from eval.runs.kept_poses import find_poses
from eval.runs.scoring import psnr_db
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import count_correct, total
from lisa_video.pose.detectors.scoring import named_detector
from lisa_video.training.metrics import read_metrics

MEASURES = Measures(("keypoint_net",), ("keypoint-net",))


def test_scores_are_of_the_files_and_survive_a_kill(tiny_run):
    """Lost clips, poses, features and scores are made again, and come out the same."""
    job = GenerationJob(str(tiny_run), 3)
    found = evaluate(job, MEASURES)
    for clip in held_out_clips(job.config, 3):
        made = load_generated(job.folder, clip.clip_id)
        assert found.pixels.psnr_db[clip.clip_id] == pytest.approx(psnr_db(made, clip.array))
    assert found.loss == held_out_loss(job)
    for pattern in ("*.npz", "poses/*/*.npz", "features/*/*.npy", "scores-*.json", "held-out-loss-*.json"):
        next(job.folder.glob(pattern)).unlink()
    assert without_nan(asdict(evaluate(job, MEASURES))) == without_nan(asdict(found))


def test_scores_are_those_of_the_detector_on_generated_and_true_frames(tiny_run):
    """Counted once more, by hand, from the frames."""
    job, detector = GenerationJob(str(tiny_run), 3), named_detector("keypoint_net")
    scores = evaluate(job, MEASURES).poses[0]
    clips = list(held_out_clips(job.config, 3))
    for share, clip in zip(scores.clips, clips, strict=True):
        made = count_correct(detector.detect(load_generated(job.folder, clip.clip_id)), clip.keypoints)
        assert (share.clip_id, share.visible) == (clip.clip_id, made.visible.sum())
        assert share.correct == tuple(made.correct.sum(axis=(1, 2)))
    true = total(count_correct(detector.detect(clip.array), clip.keypoints) for clip in clips)
    assert scores.ceiling["0.2"].value == pytest.approx(true.accuracy(0.2))
    swapped = total(count_correct(b.keypoints, a.keypoints) for a, b in zip(clips, clips[1:] + clips[:1], strict=True))
    assert scores.chance["0.2"].value == pytest.approx(swapped.accuracy(0.2))


def test_scores_are_read_again_only_for_the_same_protocol(tiny_run):
    job = GenerationJob(str(tiny_run), 3)
    evaluate(job, MEASURES)
    path = next(job.folder.glob("scores-*.json"))
    known = json.loads(path.read_text(encoding="utf-8"))
    known["pixels"]["psnr_db"] = {"a": 77.0}
    path.write_text(json.dumps(known), encoding="utf-8")
    assert evaluate(job, MEASURES).pixels.mean_psnr_db == 77.0  # nothing was scored again
    assert len(evaluate(replace(job, num_clips=2), MEASURES).poses[0].clips) == 2
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="cannot read scores"):
        evaluate(job, MEASURES)


def test_poses_are_searched_by_processes_alike(tiny_run):
    job = GenerationJob(str(tiny_run), 3)
    generate(job)
    alone = {path.name: path.read_bytes() for path in find_poses(job, "keypoint_net").glob("*.npz")}
    for path in (job.folder / "poses").rglob("*.npz"):
        path.unlink()
    folder = find_poses(job, "keypoint_net", num_processes=2)
    assert len(alone) == 3 and {path.name: path.read_bytes() for path in folder.glob("*.npz")} == alone


def test_the_protocols_hold_what_the_numbers_depend_on(tiny_run, tiny_manifest):
    job = GenerationJob(str(tiny_run), 3, seed=5)
    found = evaluate(job, MEASURES)
    protocol = found.poses[0].protocol
    assert protocol["sampling"] == job.config.sampling.model_dump(mode="json", exclude_none=True)
    assert protocol["sampling_seed"] == 5
    assert protocol["manifest_digest"] == file_digest(tiny_manifest)
    assert protocol["backbone"] == {"path": "checkpoint", "name": "svd", "options": {}}
    assert (protocol["clips"], protocol["frames"], protocol["frame_stride"]) == (3, 4, 1)
    assert (protocol["noise_aug_strength"], protocol["motion_bucket_id"]) == (0.02, 127.0)
    assert protocol["detector_digest"].startswith("sha256:") and "first true frame" in protocol["reference"]
    parts = (found.poses[0], found.distances[0], found.pixels, found.loss)
    assert len({part.protocol_id for part in parts}) == 4


def test_a_missing_detector_is_told_before_sampling(tiny_run, tmp_path):
    with pytest.raises(UserError, match="none"):
        evaluate(GenerationJob(str(tiny_run), 3), Measures((str(tmp_path / "none"),), ()))
    assert not (tiny_run / "eval").exists()


@pytest.fixture(scope="module")
def report(tiny_runs, tmp_path_factory) -> Path:
    """The HTML file of a comparison of two arms on fewer clips than a gallery shows."""
    runs = [("Baseline", str(tiny_runs / "baseline")), ("LISA", str(tiny_runs / "lisa"))]
    out = tmp_path_factory.mktemp("report") / "new" / "report.html"
    return compare(runs, out, measures=MEASURES, num_clips=3, num_processes=1, note="Tiny & quick.")


def test_a_report_has_the_arms_own_numbers(report, tiny_runs):
    numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    assert [arm["name"] for arm in numbers["arms"]] == ["Baseline", "LISA"]
    for arm, run in zip(numbers["arms"], ("baseline", "lisa"), strict=True):
        scores = evaluate(GenerationJob(str(tiny_runs / run), 3), MEASURES)
        done = json.loads((tiny_runs / run / "done.json").read_text(encoding="utf-8"))
        assert arm["evaluation"] == json.loads(json.dumps(without_nan(asdict(scores))))
        assert (arm["steps"], arm["training_seconds"]) == (2, done["seconds"])
        assert arm["parameters"] == done["parameters"]["branch"] + done["parameters"]["decoder"]
    assert numbers["arms"][1]["parameters"] > numbers["arms"][0]["parameters"]
    page = report.read_text(encoding="utf-8")
    assert "Tiny &amp; quick." in page and "max_steps: 2" in page
    with Image.open(report.with_suffix(".png")) as sheet:  # reference, and twice pose, both arms, truth
        assert sheet.size[0] // 112 == 1 + 2 * 4 and sheet.size[1] // 112 == 3
    logged = {name for row in read_metrics(tiny_runs / "lisa") for name in row}
    assert {"lisa_ratio", "pose_gap"} <= logged and "LISA loss over residual" in page and "Pose gap" in page


def test_a_report_shows_floor_and_ceilings(report, tiny_runs):
    numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    lisa = GenerationJob(str(tiny_runs / "baseline"), 3)
    for place, name, source in (("floor", "No control", "uncontrolled"), ("ceiling", "Truth through the VAE", "codec")):
        assert numbers[place]["name"] == name
        scores = evaluate(replace(lisa, source=source), MEASURES)
        assert numbers[place]["evaluation"] == json.loads(json.dumps(without_nan(asdict(scores))))
    page = report.read_text(encoding="utf-8")
    rows = [page.index(f'<th scope="row">{name}</th>') for name in
            ("No control", "Baseline", "LISA", "Truth through the VAE", "True frames")]  # fmt: skip
    assert rows == sorted(rows)
    assert any(remark.startswith("Truth through the VAE has PCK@0.1") for remark in numbers["remarks"])


def test_an_unfinished_run_is_told_before_sampling(tiny_run, tiny_runs, tmp_path):
    (tiny_run / "done.json").unlink()
    runs = [("a", str(tiny_runs / "baseline")), ("b", str(tiny_run))]
    with pytest.raises(UserError, match=r"no finished run: no done.json.*lisa-video train"):
        compare(runs, tmp_path / "r.html", measures=MEASURES, num_clips=3, num_processes=1, note="")
    assert not (tmp_path / "r.html").exists() and not (tiny_run / "eval").exists()


def test_two_arms_may_share_a_name(tiny_run, tiny_runs, tmp_path):
    shutil.copytree(tiny_runs / "baseline/eval", tiny_run / "eval", dirs_exist_ok=True)
    runs = [("run", str(tiny_runs / "baseline")), ("run", str(tiny_run))]
    out = compare(runs, tmp_path / "r.html", measures=MEASURES, num_clips=3, num_processes=1, note="")
    assert len(json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["arms"]) == 2


def test_the_gallery_shows_worst_median_and_best():
    protocol = {"frames": 4}

    def scores(shares: list[int]) -> Scores:
        clips = tuple(ClipScore(f"c{number}", 10, (0, share, 10)) for number, share in enumerate(shares))
        whole = Estimate(0.0, 0.0, 0.0)
        pck = {"0.05": whole, "0.1": whole, "0.2": whole}
        return Scores(protocol, "id", pck, {}, {}, 0.0, 0.0, pck, pck, clips)

    assert shown_places(scores([5, 9, 1, 7, 3, 8, 2])) == {
        "c2": "worst", "c6": "worst", "c4": "median", "c0": "median", "c5": "best", "c1": "best",
    }  # fmt: skip
    assert set(shown_places(scores([5, 9]))) == {"c0", "c1"}
