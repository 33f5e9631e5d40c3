"""Previews: fixed clips, pictures, pose accuracy, and no trace in the training that they look at."""

import numpy as np
import pytest
import torch
from PIL import Image

from lisa_video.data.batch import SampleKey
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest
from lisa_video.errors import UserError
from lisa_video.pose.keypoint_net import KeypointNet
from lisa_video.training.trainer import Trainer


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Folder of a keypoint network with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("detector")
    KeypointNet(size=32, width=8, feature_dim=8, depth=1).save_pretrained(folder)
    return folder


def test_pictures_and_accuracy(train, tiny_manifest, tmp_path, detector):
    run = train("run", "preview.every=2", "preview.num_clips=2", f"preview.detector={detector}")
    val = Manifest(tiny_manifest, "val")
    expected = {f"step-{step:06d}-{val[clip].clip_id}.png" for step in (2, 3) for clip in (0, 1)}
    assert {path.name for path in (tmp_path / "run/previews").iterdir()} == expected
    # Rows: truth, pose, sample; columns: 4 frames; a line of a pixel around each. The truth is the clip itself.
    picture = np.asarray(Image.open(tmp_path / "run/previews" / min(expected)))
    assert picture.shape == (3 * 33 + 1, 4 * 33 + 1, 3)
    clip = PoseClipDataset(val, num_frames=4, frame_stride=1, size=(32, 32), random_start=False)[SampleKey(0, 0)]
    truth = clip.frames[1].permute(1, 2, 0).numpy()
    assert np.abs(picture[1:33, 34:66].astype(int) - truth.astype(int)).max() <= 1

    scores = [row for row in run.rows if "pck_0.1" in row]
    assert [row["step"] for row in scores] == [2, 3]
    assert all(0 <= value <= 1 for row in scores for name, value in row.items() if name.startswith("pck_"))


def test_without_a_detector_there_are_pictures_only(train, tmp_path):
    run = train("run", "training.max_steps=1", "preview.every=1", "preview.num_clips=99")
    assert len(list((tmp_path / "run/previews").iterdir())) == 3  # all that are held out
    assert [row["step"] for row in run.rows] == [1]
    assert not any(name.startswith("pck") for name in run.rows[0])


def test_previews_have_their_own_number_of_sampling_steps(tiny_config, tmp_path):
    preview = Trainer(tiny_config("preview.every=1", "preview.num_clips=2", "preview.num_steps=3")).preview
    assert preview is not None
    calls: list[tuple] = []
    preview._pipeline.denoiser.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    preview(tmp_path / "pictures", 0)
    assert len(calls) == 2 * 3


def test_previews_leave_no_trace_in_training(train, leaves_no_trace):
    leaves_no_trace(train("on", "optimizer.eps=1e-3", "preview.every=1", "preview.num_clips=1"))


def test_a_missing_detector_is_told_with_a_remedy(train, tmp_path):
    with pytest.raises(UserError, match="cannot read the keypoint network"):
        train("run", "preview.every=1", f"preview.detector={tmp_path}")
