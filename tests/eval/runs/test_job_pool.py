"""Jobs side by side: results in order, faults told, no worker without the parent's word."""

from __future__ import annotations

import os
import subprocess
import sys
from operator import attrgetter, methodcaller

import pytest

from eval.runs.generate import GenerationJob
from eval.runs.job_pool import side_by_side
from lisa_video.processes import own_gpu

JOBS = [GenerationJob("run", clips) for clips in (5, 3, 4)]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_results_come_in_the_order_of_the_jobs(num_processes):
    before = dict(os.environ)
    assert side_by_side(attrgetter("num_clips"), JOBS, num_processes, "clips") == [5, 3, 4]
    assert dict(os.environ) == before  # what quiets the workers is gone


def test_processes_get_the_gpus_in_turn_if_there_are_several(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-9")
    assert [own_gpu(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["7", "GPU-9", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert own_gpu(1) == {}


def test_processes_may_write_the_same_file_at_once(tmp_path):
    command = "import sys; from eval.json_files import write_json; [write_json(sys.argv[1], n) for n in range(2000)]"
    file = tmp_path / "of_all.json"
    writers = [subprocess.Popen([sys.executable, "-c", command, str(file)]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert file.read_text().strip() == "1999" and list(tmp_path.iterdir()) == [file]


def test_a_fault_of_a_job_is_told():
    with pytest.raises(AttributeError, match="no_such_thing"):
        side_by_side(methodcaller("no_such_thing"), JOBS, 2, "clips")
