"""What the logged numbers mean, computed by hand, and that a resumed run's file has each row once."""

import json
import math
import sys

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.objective import LossTerms
from lisa_video.training.metrics import LossMeter, MetricsLog, drop_rows_after, read_metrics, read_rows
from lisa_video.training.tracker import Tracker


def terms(denoising, lisa, residual, sigma) -> LossTerms:
    """Terms of B clips; lisa and residual are given by clip and frame."""
    numbers = [torch.tensor(values, dtype=torch.float32) for values in (denoising, lisa, residual, sigma)]
    return LossTerms(numbers[0].mean(), *numbers)


FIRST = terms([1.0, 3.0], [[1.0, 3.0], [4.0, 4.0]], [[4.0, 4.0], [8.0, 8.0]], [0.1, 1.0])
SECOND = terms([5.0, 7.0], [[6.0, 6.0], [0.0, 2.0]], [[6.0, 6.0], [1.0, 3.0]], [1.9, 50.0])


def test_means_and_ratio_by_hand():
    meter = LossMeter()
    meter.add(FIRST)
    meter.add(SECOND)
    values = meter.report()
    assert values["denoising"] == (1 + 3 + 5 + 7) / 4
    assert values["lisa"] == (2 + 4 + 6 + 1) / 4
    # a ratio of sums, not the mean of the clips' ratios
    assert math.isclose(values["lisa_ratio"], (2 + 4 + 6 + 1) / (4 + 8 + 6 + 2))


def test_bins_of_the_noise_level_by_hand():
    meter = LossMeter()
    meter.add(FIRST)
    meter.add(SECOND)
    values = meter.report()
    assert values["denoising/sigma_bin_0"] == 1  # sigma 0.1, up to 0.5
    assert values["denoising/sigma_bin_1"] == (3 + 5) / 2  # sigmas 1.0 and 1.9, of two micro-batches
    assert math.isclose(values["lisa_ratio/sigma_bin_1"], (4 + 6) / (8 + 6))
    assert values["lisa_ratio/sigma_bin_3"] == 0.5  # sigma 50, above 8
    assert not [name for name in values if name.endswith("sigma_bin_2")]  # nothing fell there


def test_a_report_starts_again():
    meter = LossMeter()
    meter.add(FIRST)
    meter.report()
    meter.add(SECOND)
    assert meter.report()["denoising"] == 6


def test_the_baseline_reports_no_lisa():
    meter = LossMeter()
    meter.add(terms([1.0], [[0.0, 0.0]], [[0.0, 0.0]], [1.0]))
    assert meter.report() == {"denoising": 1.0, "denoising/sigma_bin_1": 1.0}


def test_micro_batches_without_the_loss_do_not_dilute_it():
    meter = LossMeter()
    meter.add(FIRST)
    meter.add(terms([5.0, 7.0], [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [1.9, 50.0]))
    values = meter.report()
    assert values["lisa"] == (2 + 4) / 2 and values["denoising"] == 4
    assert math.isclose(values["lisa_ratio"], (2 + 4) / (4 + 8))


def test_sums_survive_a_checkpoint():
    whole, before, after = LossMeter(), LossMeter(), LossMeter()
    for meter in (whole, before):
        meter.add(FIRST)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for meter in (whole, after):
        meter.add(SECOND)
    assert whole.report() == after.report()


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, resumed_at=0)
    for step in range(1, 6):
        log.write(step, {"denoising": step / 10, "note": "text"})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "denoi')  # the kill came in the middle of a row

    resumed = MetricsLog(tmp_path, resumed_at=3)
    resumed.write(4, {"denoising": 0.4, "note": "text"})
    resumed.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1] == {"step": 4, "denoising": 0.4, "note": "text"}
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_fresh_start_drops_all_rows(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    MetricsLog(tmp_path, resumed_at=0).close()
    assert read_metrics(tmp_path) == []


def test_no_file_has_no_rows(tmp_path):
    drop_rows_after(tmp_path / "none.jsonl", 3)
    assert read_rows(tmp_path / "none.jsonl") == read_metrics(tmp_path) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("sigma", "number"), [(0.5, 0), (0.500001, 1), (2.0, 1), (8.0, 2), (8.1, 3)])
def test_edges_belong_to_the_bin_below(sigma, number):
    meter = LossMeter()
    meter.add(terms([1.0], [[1.0, 1.0]], [[1.0, 1.0]], [sigma]))
    assert f"denoising/sigma_bin_{number}" in meter.report()


def test_a_tracker_that_is_not_there_is_a_mistake_with_a_remedy(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)  # as if it was not installed
    with pytest.raises(UserError, match=r"diagnostics.tracker: trackio is not installed .*Remedy: pip install trackio"):
        Tracker("trackio", tmp_path / "run", tiny_config())


def test_a_tracker_gets_the_numbers(tmp_path, tiny_config, monkeypatch):
    storage = pytest.importorskip("trackio.sqlite_storage", exc_type=ImportError, reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    log = MetricsLog(tmp_path, 0, Tracker("trackio", tmp_path / "project/run", tiny_config()))
    log.write(3, {"denoising": 0.5, "note": "text"})
    log.close()
    (row,) = storage.SQLiteStorage.get_logs("project", "run")
    assert (row["step"], row["denoising"]) == (3, 0.5) and "note" not in row
