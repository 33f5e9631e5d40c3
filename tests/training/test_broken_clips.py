"""Broken clips: the run goes on, says why and how many, and counts right when it is resumed."""

import shutil
from pathlib import Path

import pytest

from lisa_video.data.manifest import Manifest
from lisa_video.errors import UserError
from lisa_video.train import main
from lisa_video.training.metrics import read_rows
from lisa_video.training.trainer import Trainer


def break_videos(manifest: Path, clips: slice) -> list[str]:
    """Overwrite the videos of some training clips; returns the clips' names."""
    train = Manifest(manifest, "train")
    records = [train[index] for index in range(len(train))][clips]
    for record in records:
        train.resolve(record.video).write_bytes(b"not a video")
    return [record.clip_id for record in records]


@pytest.fixture
def own_manifest(tiny_manifest, tmp_path) -> Path:
    """A copy of the tiny data set that may be broken."""
    shutil.copytree(tiny_manifest.parent, tmp_path / "data")
    return tmp_path / "data" / tiny_manifest.name


def test_the_run_goes_on_and_tells(train, own_manifest, tmp_path):
    (broken,) = break_videos(own_manifest, slice(4, 5))
    # 9 clips, 2 a step: the broken one comes once in the first epoch, and once more in the second.
    run = train("run", f"data.manifest={own_manifest}", "training.max_steps=9", "preview.every=0")
    skipped = read_rows(tmp_path / "run/skipped-rank0.jsonl")
    assert [row["clip_id"] for row in skipped] == [broken, broken]
    assert all(broken in row["reason"] and "Remedy" in row["reason"] for row in skipped)
    counts = [row["clips_skipped"] for row in run.rows]
    assert counts == [sum(row["step"] <= step for row in skipped) for step in range(1, 10)]
    assert counts[-1] == 2


def test_a_resumed_run_counts_each_skipped_clip_once(train, same_bits, own_manifest, tmp_path, monkeypatch):
    break_videos(own_manifest, slice(1, 5))
    settings = (f"data.manifest={own_manifest}", "training.max_steps=4", "training.checkpoint_every=2")
    whole = train("whole", *settings)
    with monkeypatch.context() as patch:
        train_step = Trainer.train_step

        def cut(self, batches):
            train_step(self, batches)
            if self.step == 4:
                raise KeyboardInterrupt  # after the clips of steps 3 and 4 were read, before a checkpoint says so

        patch.setattr(Trainer, "train_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train("parts", *settings)
    same_bits(train("parts", *settings), whole)
    assert whole.rows[-1]["clips_skipped"] > whole.rows[1]["clips_skipped"]
    files = [tmp_path / name / "skipped-rank0.jsonl" for name in ("whole", "parts")]
    assert read_rows(files[0]) == read_rows(files[1])


def test_loading_processes_change_nothing(train, same_bits, own_manifest):
    break_videos(own_manifest, slice(1, 5))
    settings = (f"data.manifest={own_manifest}", "training.max_steps=2")
    same_bits(train("workers", *settings, "data.num_workers=1"), train("none", *settings))


def test_no_readable_clip_left(train, own_manifest):
    break_videos(own_manifest, slice(0, 9))
    with pytest.raises(UserError, match=r"no usable clip among 8 records .*Remedy: mend or remove these clips"):
        train("run", f"data.manifest={own_manifest}")


def test_no_readable_clip_ends_the_command_with_status_2(own_manifest, tiny_config_file, capfd):
    break_videos(own_manifest, slice(1, 9))
    own_manifest.write_text("\n".join(_without_first_train_clip(own_manifest)) + "\n", encoding="utf-8")
    assert main([str(tiny_config_file), f"data.manifest={own_manifest}"]) == 2
    error = capfd.readouterr().err
    assert error.count("error: ") == 1 and "Remedy" in error and "Traceback" not in error


def _without_first_train_clip(manifest: Path) -> list[str]:
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines.remove(next(line for line in lines if '"split":"train"' in line))
    return lines
