"""`lisa-video eval fvd` on folders: known distances, what is said about bad input, and going on after a kill."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from typer.testing import CliRunner

from eval.distances.clip_features import clip_features
from eval.distances.features import FeatureExtractor
from eval.distances.fvd import FVDSettings, run_fvd
from eval.videos import ClipProtocol, VideoFolder
from lisa_video import cli
from lisa_video.errors import UserError

FIVE = {"a": 8, "b": 9, "c": 10, "d": 11, "sub/eeee": 12}
SETTINGS = FVDSettings(ClipProtocol(6))


@pytest.fixture(scope="module")
def real(make_videos, tmp_path_factory) -> Path:
    """Five videos of which the grey level differs. Read only."""
    return make_videos(tmp_path_factory.mktemp("folders") / "real", {**FIVE, "longername": 8})


class MeanAndNaN(torch.nn.Module):
    """The mean of each channel; NaN for bright clips. It has the call of i3d_torchscript.pt."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        """(N, 3, F, H, W) -> (N, 3)."""
        mean = x.mean(dim=(2, 3, 4))
        return torch.where(mean > 200, torch.nan, mean)


@pytest.fixture(scope="module")
def fvd(tmp_path_factory) -> Callable[..., str]:
    """`fvd(real, fake, *options)`: what the command prints, with `MeanAndNaN` on six frames."""
    path = tmp_path_factory.mktemp("script") / "mean.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(MeanAndNaN()).save(str(path))

    def run(*arguments: str | Path) -> str:
        options = ["--extractor", f"i3d-torchscript:{path}", "--resize", "own", "--frames", "6", "--device", "cpu"]
        words = ["eval", "fvd", *map(str, arguments), *options]
        result = CliRunner().invoke(cli.app, words, catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    return run


def test_a_folder_is_at_distance_zero_of_itself_and_of_its_copy(fvd, real, tmp_path):
    """By any names; both are said, since someone may have mixed up folders."""
    shutil.copytree(real, tmp_path / "copy")
    (tmp_path / "copy" / "a.mp4").rename(tmp_path / "copy" / "z.mp4")
    for fake, words in ((real, "REAL and FAKE are the same folder"), (tmp_path / "copy", "both folders hold the same")):
        printed = fvd(real, fake, "--json", tmp_path / "found.json")
        found = json.loads((tmp_path / "found.json").read_text())
        assert words in printed and found["frechet"]["value"] == pytest.approx(0, abs=1e-6)
        assert found["kernel"]["value"] < 0


def test_numbers_and_protocol_are_those_of_independent_formulas(fvd, real, make_videos, tmp_path):
    """Scipy's eigenvalues of covariances from decoded frames; FVD does not change with names or order."""
    fake = make_videos(tmp_path / "fake", {f"x{name.replace('/', '')}": 20 for name in FIVE}, brightness=30)
    printed = fvd(real, fake, "--json", tmp_path / "found.json", "--infinite", "--cache", tmp_path / "cache")
    found = json.loads((tmp_path / "found.json").read_text())
    rows = [
        np.stack(
            [clip.frames.astype(float).mean(axis=(0, 1, 2)) for clip in VideoFolder(folder, ClipProtocol(6)).clips()]
        )
        for folder in (real, fake)
    ]
    first, second = (np.cov(part.T) for part in rows)
    roots = np.sqrt(scipy.linalg.eigvals(first @ second).real.clip(0))  # their sum is the trace of the matrix's root
    expected = np.sum((rows[0].mean(0) - rows[1].mean(0)) ** 2) + np.trace(first + second) - 2 * roots.sum()
    assert expected > 2000 and found["frechet"]["value"] == pytest.approx(expected, rel=1e-4)
    assert "FVD" in printed and f"{found['frechet']['value']:.2f}" in printed
    assert f"protocol {found['protocol_id']}" in printed and "features.digest: sha256:" in printed
    for word in ("FVD-infinity", "FVD floor", "KVD", "covariance: unbiased", "counts.real: 6", "counts.fake: 5"):
        assert word in printed
    assert "6 real and 5 fake clips" in printed and "use --clips 5" in printed
    again = fvd(real, fake, "--infinite", "--cache", tmp_path / "cache")
    assert printed.startswith(again), "numbers from the cache are the same"
    other = fvd(real, fake, "--infinite", "--stride", "1", "--start", "middle")
    assert f"protocol {found['protocol_id']}" not in other


def test_a_shift_costs_its_squared_length(real, extractor, make_videos, tmp_path):
    """All clips 24 levels brighter in three channels; video coding moves levels by less than one."""
    fake = make_videos(tmp_path / "fake", {**FIVE, "longername": 8}, brightness=24)
    found = run_fvd(real, fake, extractor, SETTINGS)
    assert found.frechet.value == pytest.approx(3 * 24**2, rel=0.08)
    assert found.frechet.low <= found.frechet.value <= found.frechet.high
    assert sum("without each clip's own partner" in note for note in found.notes) == 1, "the names are the same"


def test_folders_that_differ_are_compared_and_it_is_said(fvd, real, make_videos, tmp_path):
    """Counts, sizes, frame rates, short, damaged and foreign files: notes with counts, in the text and the JSON."""
    fake = make_videos(tmp_path / "fake", {"a": 8, "short": 3, "c": 12}, fps=25, size=(48, 64))
    shutil.copy(real / "d.mp4", fake / "real.mp4")
    (fake / "broken.mp4").write_bytes(b"no video")
    (fake / "notes.txt").write_text("")
    printed = fvd(real, fake, "--json", tmp_path / "found.json")
    for words in (
        "2 of 5 fake videos were skipped", "1 files of the fake folder are no videos", "6 real and 3 fake clips",
        "the fake clips are of different sizes: 64 x 48, 32 x 32", "the fake clips run at 10 to 25 frames per second",
        "real and fake clips differ in frames per second", "real clips are 32 x 32, fake ones 64 x 48 pixels",
        "3 clips for 3 feature dimensions: the covariance is singular", "1 clips are in both folders",
    ):  # fmt: skip
        assert f"note: {words}" in printed, words
    skipped = dict(json.loads((tmp_path / "found.json").read_text())["fake"]["skipped"])
    assert skipped["short"] == "too short: 3 frames, a clip spans 6" and "not a readable video" in skipped["broken"]


def test_too_few_clips_and_features_that_are_not_finite_end_the_command(fvd, real, make_videos, tmp_path):
    one = make_videos(tmp_path / "one", {"a": 8, "short": 5})
    with pytest.raises(
        UserError, match=r"1 usable clips among 2 videos \(1 skipped\), 2 are needed.*--clips-per-video"
    ):
        fvd(real, one)
    bright = make_videos(tmp_path / "bright", {"a": 8, "b": 8}, brightness=190)
    with pytest.raises(
        UserError, match=r"a\.mp4: the features of the clip at frame 0 are not finite.*look at this video"
    ):
        fvd(real, bright)
    with pytest.raises(UserError, match=r"3 usable clips.*4 are needed"):
        fvd(real, make_videos(tmp_path / "three", {"a": 8, "b": 8, "c": 8}), "--infinite")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "8"], "I3D .*takes at least 9.*--frames 9"),
        (["--start", "end"], "--start: no start 'end'"),
        (["--resize", "stretch"], "--resize: no resizing 'stretch'"),
        (["--extractor", "i3d:{tmp}/i3d.ckpt"], "wrong weights of I3D: sha256:.*pip install --no-deps"),
        (["--device", "cuda"], "--device cuda: there is no usable GPU"),
    ],
)
def test_mistakes_are_one_line_and_status_2(options, words, real, tmp_path, monkeypatch, capsys):
    if "--device" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "i3d.ckpt").write_bytes(b"other weights")
    arguments = [option.format(tmp=tmp_path) for option in options]
    monkeypatch.setattr(sys, "argv", ["lisa-video", "eval", "fvd", str(real), str(real), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and re.search(words, error), error


class Interrupted(FeatureExtractor):
    """Mean colour; the process ends at the call of this number."""

    name, digest, dimension = "mean colour", "sha256:" + "1" * 64, 3
    protocol = {"name": "mean colour"}  # noqa: RUF012

    def __init__(self, end: int) -> None:
        self.end, self.calls = end, 0

    def features(self, videos: np.ndarray) -> np.ndarray:
        """See `FeatureExtractor`."""
        self.calls += 1
        if self.calls == self.end:
            raise KeyboardInterrupt
        return videos.astype(np.float64).mean(axis=(1, 2, 3))


def test_a_killed_command_goes_on_and_damaged_files_are_computed_again(real, tmp_path):
    """What was computed before the kill is not computed again, wherever the videos lie and however they are called."""
    folder, killed = VideoFolder(real, ClipProtocol(6)), Interrupted(end=4)
    with pytest.raises(KeyboardInterrupt):
        clip_features(folder, killed, cache=tmp_path, batch_size=1)
    shutil.copytree(real, tmp_path / "moved")
    rest = Interrupted(end=0)
    found = clip_features(VideoFolder(tmp_path / "moved", ClipProtocol(6)), rest, cache=tmp_path, batch_size=1)
    whole = clip_features(folder, Interrupted(end=0))
    assert rest.calls == 3
    np.testing.assert_array_equal(found.features, whole.features)
    stored = sorted(tmp_path.rglob("*.npy"))
    stored[0].write_bytes(stored[0].read_bytes()[:40])
    again = Interrupted(end=0)
    clip_features(folder, again, cache=tmp_path, batch_size=1)
    assert again.calls == 1 and len(stored) == 6


def test_a_part_is_drawn_by_the_seed_and_equal_names_give_equal_parts(real, extractor, make_videos, tmp_path):
    fake = make_videos(tmp_path / "fake", {**FIVE, "longername": 8}, brightness=24)
    drawn = [run_fvd(real, fake, extractor, FVDSettings(ClipProtocol(6), max_clips=3, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0].real.clips == drawn[0].fake.clips == 3
    assert drawn[0].protocol_id == drawn[1].protocol_id != drawn[2].protocol_id
    assert drawn[0].frechet == drawn[1].frechet and drawn[0].protocol["choice"] == "at most 3, seed 0"
    assert drawn[0].frechet.value == pytest.approx(3 * 24**2, rel=0.08), "the same three on both sides"
