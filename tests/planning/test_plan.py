"""The memory plan: what it counts, against sums by hand and against real modules."""

import json

import pytest
import torch
from torch import nn

from lisa_video.config.load import parse_config
from lisa_video.models.build import build_backbone, build_denoiser, parameter_counts
from lisa_video.models.svd.build import outline
from lisa_video.models.svd.tiny import random_checkpoint
from lisa_video.planning import trace as tracing
from lisa_video.planning.memory import LAYOUTS, REDUCE_BUCKET, Layout, rank_memory
from lisa_video.planning.plan import RunPlan, plan_run, remedies
from lisa_video.planning.trace import StepTrace, trace_step


@pytest.fixture(scope="module")
def shallow(tmp_path_factory, tiny_settings):
    """Settings of a run on a network of two levels: a trace takes its time by layers, not by sizes."""
    folder = tmp_path_factory.mktemp("svd") / "shallow"
    random_checkpoint(folder, widths=(32, 32), vae_widths=(32, 32))
    branch = tiny_settings["branch"] | {"pose_channels": [4, 8]}
    return {"run_dir": "unused", **tiny_settings, "backbone": {"path": str(folder)}, "branch": branch}


@pytest.fixture(scope="module")
def traces(shallow):
    """Traces of three runs, which serve all tests."""
    checkpointed = shallow["training"] | {"gradient_checkpointing": True}
    runs = {"plain": {}, "checkpointed": {"training": checkpointed}, "baseline": {"lisa": None}}
    return {name: trace_step(parse_config(shallow | changes, name)) for name, changes in runs.items()}


def test_storages_are_followed_from_birth_to_end():
    n = 4 * 1000  # bytes
    with torch.device("meta"):
        x = torch.empty(1000, requires_grad=True)
    model = nn.Module()
    with tracing._LiveBytes(model) as live:
        y = x.exp().exp()  # two outputs, both kept for the backward pass
        assert live.now == live.peak == 2 * n
        view = y.view(10, 100)[0]  # no memory of its own
        assert live.now == 2 * n
        del y, view
        assert live.now == 0  # with the graph
        z = x.detach() + 1
        z = z + 1
        assert live.now == n and live.peak == 2 * n
    del z


def test_gradients_are_counted_apart():
    with torch.device("meta"):
        model = nn.Linear(100, 100, bias=False)
        x = torch.empty(7, 100)
    with tracing._LiveBytes(model) as live:
        model(x).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    ((most, share), *_) = live.peaks()
    assert share == 0.0 and most >= 4 * 100 * 100  # the gradient itself, as it is made
    assert live.now == 0


def test_parameters_are_those_of_the_real_models(traces, shallow):
    config, trace = parse_config(shallow, "tests"), traces["plain"]
    parts = build_backbone(config.backbone)
    counts = parameter_counts(build_denoiser(config, parts))
    assert trace.frozen == counts["frozen"]
    assert trace.trainable == counts["branch"] + counts["decoder"]
    assert trace.codec == sum(p.numel() for p in parts.codec.parameters())


def test_checkpointing_keeps_less_and_computes_more(traces):
    plain, checkpointed = traces["plain"], traces["checkpointed"]
    assert checkpointed.activations[0][0] < 0.6 * plain.activations[0][0]
    assert checkpointed.model_flops == plain.model_flops == plain.flops < checkpointed.flops


def test_lisa_costs_one_frozen_decoder_pass(traces):
    assert 1.05 < traces["plain"].flops / traces["baseline"].flops < 1.3


HAND = StepTrace(1000, 100, 10, ((5000, 0.0), (4950, 0.5)), 300, 0, 0)


def test_one_rank_in_bf16_by_hand():
    memory = rank_memory(HAND, Layout(2), 1, bf16=True)
    assert (memory.frozen, memory.weights, memory.codec) == (2000, 200, 40)
    assert (memory.optimizer, memory.average, memory.gradients) == (1200, 400, 200)
    assert memory.buffers == 2 * 2 * 100  # two, never larger than the gradients
    assert memory.activations == 4950  # with half of the gradients there are 5050 bytes, more than 5000
    assert memory.peak == 2000 + 200 + 40 + 1200 + 400 + 5050 + 400
    assert memory.host == 0
    large = StepTrace(10**9, 10**9, 0, ((0, 0.0),), 0, 0, 0)
    assert rank_memory(large, Layout(1), 1, bf16=True).buffers == 4 * REDUCE_BUCKET


def test_ranks_share_what_their_stage_splits():
    by_stage = [rank_memory(HAND, Layout(stage), 10, bf16=True) for stage in range(4)]
    assert [memory.optimizer for memory in by_stage] == [1200, 120, 120, 120]
    assert [memory.average for memory in by_stage] == [400, 40, 40, 40]
    assert [memory.gradients for memory in by_stage] == [200, 200, 20, 20]
    assert [memory.weights for memory in by_stage] == [200, 200, 200, 20]
    assert [memory.frozen for memory in by_stage] == [2000, 2000, 2000, 200]


def test_offloading_moves_to_the_host():
    here, there = (rank_memory(HAND, Layout(2, offload_optimizer=off), 1, bf16=True) for off in (False, True))
    assert there.optimizer == there.average == 0
    assert there.peak < here.peak - 1600
    assert there.host == 1200 + 400 + 400 + 200


BILLION = StepTrace(10**9, 10**9, 0, ((10**9, 0.0),), 0, 0, 0)


@pytest.fixture
def plan(shallow):
    """`plan(10**9, zero_stage=1)`: the plan of `BILLION` for eight GPUs of so many bytes."""

    def build(gpu_bytes, **training):
        config = parse_config(shallow | {"training": shallow["training"] | training}, "tests")
        memory = {layout: rank_memory(BILLION, layout, 8, bf16=True) for layout in LAYOUTS}
        return RunPlan(config, 8, gpu_bytes, BILLION, memory)

    return build


def test_the_first_layout_that_fits_is_recommended(plan):
    roomy, tight = plan(10**12, zero_stage=2), plan(1)
    assert roomy.fits and roomy.recommended == LAYOUTS[0] and roomy.chosen == Layout(2)
    assert tight.fits is False and tight.recommended is None
    assert plan(None).fits is None
    limit = roomy.memory[Layout(2)].needed
    assert plan(limit).recommended == Layout(2) and plan(limit - 1).recommended == Layout(3)
    json.dumps(roomy.as_json())
    assert "fits into 1000 GB" in roomy.as_text() and "* ZeRO 2" in roomy.as_text()


def test_muon_keeps_one_moment_and_cannot_be_split(shallow):
    whole = shallow["training"] | {"zero_stage": 0, "precision": "bf16"}
    kinds = [
        parse_config(shallow | {"training": whole, "optimizer": {"kind": kind}}, kind) for kind in ("adamw", "muon")
    ]
    adamw, muon = (plan_run(config, 2) for config in kinds)
    assert list(muon.memory) == [Layout(0)] and set(adamw.memory) == set(LAYOUTS)
    trained = muon.trace.trainable
    assert (muon.memory[Layout(0)].optimizer, adamw.memory[Layout(0)].optimizer) == (8 * trained, 12 * trained)


def test_remedies_are_ordered_by_what_they_save(plan):
    found = remedies(plan(1, micro_batch_size=1))
    settings = dict(found)
    assert any("offload_optimizer=true" in setting for setting in settings)
    assert settings["training.gradient_checkpointing=true"] > 0
    assert [saved for _, saved in found] == sorted(settings.values(), reverse=True)


def test_published_sizes_need_no_weights():
    parts = outline("stabilityai/stable-video-diffusion-img2vid", {})
    assert sum(p.numel() for p in parts.backbone.parameters()) == 1_524_623_082
    assert sum(p.numel() for p in parts.codec.parameters()) == 729_819_647  # 97.7M of the VAE, the rest CLIP's
    assert all(p.is_meta for p in parts.backbone.parameters())
