"""Jobs side by side: results in order, faults told, no worker without the parent's word."""

from __future__ import annotations

import os
from operator import attrgetter, methodcaller

import pytest

from eval.runs.generate import GenerationJob
from eval.runs.job_pool import side_by_side

JOBS = [GenerationJob("run", clips) for clips in (5, 3, 4)]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_results_come_in_the_order_of_the_jobs(num_processes):
    assert side_by_side(attrgetter("num_clips"), JOBS, num_processes, "clips") == [5, 3, 4]
    assert "TQDM_DISABLE" not in os.environ  # for the workers only


def test_a_fault_of_a_job_is_told():
    with pytest.raises(AttributeError, match="no_such_thing"):
        side_by_side(methodcaller("no_such_thing"), JOBS, 2, "clips")
