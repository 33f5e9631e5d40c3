"""Speed and memory of a run: numbers by hand, a file of their own, and parts that make up the step."""

import time

import pytest
import torch

from lisa_video.training.metrics import SPEED_FILE, MetricsLog, read_rows
from lisa_video.training.telemetry import Telemetry, peak_flops

CPU = torch.device("cpu")


def test_rates_by_hand(tiny_config, monkeypatch):
    clock = iter([10.0, 11.0, 20.0, 24.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    telemetry = Telemetry(tiny_config(), CPU, clips_per_step=6)
    assert telemetry.report(100, 50.0) == {}  # where a resumed run begins
    with telemetry.part("data"):
        pass
    with telemetry.part("forward"):
        pass
    values = telemetry.report(102, 60.0)
    assert values["clips_per_second"] == 2 * 6 / 10
    assert values["seconds_per_step"] == 5
    assert values["seconds_per_step/data"] == 0.5 and values["seconds_per_step/forward"] == 2
    assert values["host_gb"] > 0 and "mfu" not in values and "gpu_gb" not in values
    assert "seconds_per_step/data" not in telemetry.report(104, 61.0)  # a report starts again


def test_a_run_tells_where_its_time_goes(plain):
    rows = read_rows(plain.trainer.run_dir / SPEED_FILE)
    assert [row["step"] for row in rows] == [1, 2, 3]
    names = {"data", "encode", "forward", "backward", "optimizer", "average"}
    for row in rows:
        parts = {name.partition("/")[2]: value for name, value in row.items() if name.startswith("seconds_per_step/")}
        assert parts.keys() == names
        assert sum(parts.values()) == pytest.approx(row["seconds_per_step"], rel=0.2)
        assert parts["backward"] > parts["average"]
    assert not [name for row in plain.rows for name in row if name.startswith("clips_per_second")]


def test_a_resumed_run_drops_rows_that_are_made_again(tmp_path):
    log = MetricsLog(tmp_path, resumed_at=0)
    for step in (1, 2, 3):
        log.write_speed(step, {"clips_per_second": 1.0})
    log.close()
    MetricsLog(tmp_path, resumed_at=2).close()
    assert [row["step"] for row in read_rows(tmp_path / SPEED_FILE)] == [1, 2]


def test_peaks_by_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H20") == 148e12  # not H200's
    assert peak_flops("some other card") is None
