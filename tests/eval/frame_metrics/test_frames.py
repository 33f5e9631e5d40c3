"""`lisa-video eval frames` on folders: known numbers, what is left out and said, and going on after a kill."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from eval.frame_metrics import frames as module
from eval.frame_metrics.fidelity import PSNR
from eval.frame_metrics.frames import score_frames
from lisa_video import cli
from lisa_video.data.video_io import read_frames, write_video
from lisa_video.errors import UserError

FRAMES = 5


def write(path: Path, seed: int, *, shift: int = 0, size: tuple[int, int] = (48, 64), frames: int = FRAMES) -> None:
    """A smooth random texture that moves by two pixels a frame, so many grey levels brighter; nearly lossless."""
    noise = torch.rand(1, 3, 12, 24, generator=torch.Generator().manual_seed(seed))
    texture = torch.nn.functional.interpolate(noise, (size[0], 3 * size[1]), mode="bicubic")[0].clamp(0, 1)
    still = (60 + 120 * texture.permute(1, 2, 0).numpy()).astype(np.uint8)
    clip = np.stack([still[:, 2 * frame : 2 * frame + size[1]] for frame in range(frames)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, clip + np.uint8(shift), 10, crf=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Real and generated videos, 0, 8 and 16 levels brighter; one of each side has no partner. Read only."""
    root = tmp_path_factory.mktemp("frames")
    for number, name in enumerate(("a", "b", "deep/c")):
        write(root / "real" / f"{name}.mp4", number)
        write(root / "fake" / f"{name}.mp4", number, shift=8 * number)
    write(root / "real" / "alone.mp4", 7)
    return root / "real", root / "fake"


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """`command(*arguments)` -> exit status, and what it printed (errors too)."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lisa-video", "eval", "frames", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out + captured.err

    return run


def test_numbers_are_those_of_the_decoded_frames_and_have_their_protocol(command, folders, tmp_path):
    """PSNR and flicker written out; what needs larger frames is left out with its reason."""
    status, printed = command(*folders, "--json", tmp_path / "frames.json")
    found = json.loads((tmp_path / "frames.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert status == 0 and list(found["clips"]) == ["a", "b", "deep/c"]
    expected = []
    for name in found["clips"]:
        real, fake = (read_frames(folder / f"{name}.mp4", np.arange(FRAMES)).astype(float) for folder in folders)
        errors = ((real - fake) ** 2).mean(axis=(1, 2, 3))
        expected.append(np.mean(10 * np.log10(255**2 / np.maximum(errors, 255**2 * 1e-10))))
        assert found["clips"][name]["psnr_db"] == pytest.approx(expected[-1])
        assert found["clips"][name]["flicker_ratio"] == pytest.approx(1, abs=0.05)
    assert found["means"]["psnr_db"]["value"] == pytest.approx(np.mean(expected))
    assert expected[1] == pytest.approx(20 * np.log10(255 / 8), abs=0.5)
    assert found["clips"]["a"]["ssim"] == pytest.approx(1.0) and 0.5 < found["clips"]["deep/c"]["ssim"] < 0.999
    assert f"protocol {found['protocol_id']}, 3 clips" in printed and "stride: 1" in printed
    assert "left out: MultiScaleSSIM: needs frames of 176 pixels at least, the smallest have 48" in printed
    assert "note: 1 real videos have no partner and were left out" in printed


def test_networks_from_files_add_their_columns(command, folders, tmp_path):
    """LPIPS with random weights says that it is not LPIPS; FID says that its covariance is singular."""
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeeze.pth")
    flat = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(_Float(flat)).save(str(tmp_path / "pool.pt"))
    status, printed = command(
        *folders, "--lpips-backbone", tmp_path / "squeeze.pth", "--lpips-net", "squeeze", "--fid-network",
        tmp_path / "pool.pt", "--frames", "2", "--json", tmp_path / "frames.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "frames.json").read_text())
    assert status == 0 and found["clips"]["a"]["lpips"] == 0.0 < found["clips"]["b"]["lpips"]
    assert "NOT the published ones" in printed and "FID over frames" in printed
    assert found["fid"]["fid_frames"] == 6 and "the covariance is singular" in printed
    assert found["protocol"]["metrics"]["FID"]["network"] == "TorchScript pool.pt"


class _Float(torch.nn.Module):
    """A network that takes bytes."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, D)."""
        return self.net(frames.float())


def test_folders_that_differ_are_compared_and_it_is_said(command, folders, tmp_path):
    """Another size and length, and a damaged file: counted notes."""
    write(tmp_path / "a.mp4", 0, size=(96, 128), frames=9)
    write(tmp_path / "b.mp4", 1)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/c.mp4").write_bytes(b"no video")
    status, printed = command(folders[0], tmp_path)
    assert status == 0 and "skipped deep/c: " in printed and "not a readable video" in printed
    for words in ("1 pairs differ in size: real frames scaled", "1 pairs differ in length: the first frames that both"):
        assert f"note: {words}" in printed
    assert "frames: 5 to 5 a clip" in printed and "sizes: ['128 x 96', '64 x 48']" in printed


def test_a_folder_against_itself_is_perfect_and_it_is_said(command, folders):
    status, printed = command(folders[1], folders[1])
    assert status == 0 and "100.00 [100.00, 100.00]" in printed and "1.0000 [1.0000, 1.0000]" in printed
    assert "note: both folders are the same: every clip is compared with itself" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{real} none", "none: no such folder"),
        ("{real} {one}", "1 clips could be compared, at least 2 are needed"),
        ("{real} {other}", "no video has a partner"),
        ("{real} {fake} --lpips-net resnet", "--lpips-net: no backbone 'resnet'"),
        ("{real} {fake} --lpips-backbone none.pth", "alexnet-owt-7be5be79.pth"),
        ("{real} {fake} --fid-network none.pt", "none.pt: cannot load the network"),
        ("{real} {fake} --identity-model none.onnx", "none.onnx"),
    ],
)
def test_mistakes_are_one_line_and_status_2(command, folders, tmp_path, arguments, words):
    write(tmp_path / "one/a.mp4", 0)
    write(tmp_path / "other/x.mp4", 0)
    places = {"real": folders[0], "fake": folders[1], "one": tmp_path / "one", "other": tmp_path / "other"}
    status, printed = command(*arguments.format(**places).split())
    assert status == 2 and words in printed and "Traceback" not in printed


def test_clips_that_do_not_fit_into_memory_are_refused_before_any_is_read(folders, monkeypatch):
    monkeypatch.setattr(module, "MAX_CLIP_BYTES", 2 * 4 * 48 * 64 * 3)
    with pytest.raises(UserError, match=r"5 frames of 64 x 48 pixels take .* GiB a pair.*--frames 100"):
        score_frames(*folders, [PSNR()], progress=False)
    assert len(score_frames(*folders, [PSNR()], max_frames=4, progress=False).clips) == 3


class Interrupted(PSNR):
    """PSNR; the process ends at the call of this number."""

    def __init__(self, end: int) -> None:
        self.end, self.calls = end, 0

    def measure(self, real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
        """See `FrameMetric`."""
        self.calls += 1
        if self.calls == self.end:
            raise KeyboardInterrupt
        return super().measure(real, generated)


def test_a_killed_command_goes_on(folders, tmp_path):
    """Clips that were measured before are not measured again; the numbers and the protocol are the same."""
    with pytest.raises(KeyboardInterrupt):
        score_frames(*folders, [Interrupted(end=3)], cache=tmp_path, progress=False)
    rest = Interrupted(end=0)
    found = score_frames(*folders, [rest], cache=tmp_path, progress=False)
    assert rest.calls == 1 and found == score_frames(*folders, [Interrupted(end=0)], progress=False)
