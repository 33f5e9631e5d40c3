"""YAML and overrides -> config and back; mistakes are refused with the nearest key."""

from __future__ import annotations

import pytest
import yaml

from lisa_video.config.load import dump_config, load_config
from lisa_video.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def minimal(write):
    return write("run_dir: runs/x\ndata: {manifest: m.jsonl}\n")


def test_minimal_file(minimal):
    config = load_config(minimal)
    assert config.run_dir == "runs/x" and config.data.manifest == "m.jsonl" and config.data.num_frames == 14


def test_overrides_are_typed(minimal):
    config = load_config(
        minimal,
        [
            "optimizer.lr=2e-4",
            "data.size=[64,96]",
            "training.gradient_checkpointing=false",
            "lisa.layer=mid",
            "data.manifest=a=b.jsonl",
            "preview.detector=null",
            "backbone.options={variant: fp16}",
            "seed=3",
        ],
    )
    assert config.optimizer.lr == 2e-4
    assert config.data.size == (64, 96)
    assert config.training.gradient_checkpointing is False
    assert config.lisa is not None and config.lisa.layer == "mid"
    assert config.data.manifest == "a=b.jsonl"
    assert config.preview.detector is None
    assert config.backbone.options == {"variant": "fp16"}
    assert config.seed == 3


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_numbers_may_be_written_in_any_usual_way(minimal, write, text):
    assert load_config(minimal, [f"optimizer.lr={text}"]).optimizer.lr == 1e-4
    assert load_config(write(f"run_dir: x\ndata: {{manifest: m}}\noptimizer: {{lr: {text}}}\n")).optimizer.lr == 1e-4


def test_later_override_wins(minimal):
    assert load_config(minimal, ["seed=1", "seed=2"]).seed == 2


def test_lisa_null_in_file_and_override(minimal, write):
    assert load_config(minimal, ["lisa=null"]).lisa is None
    file = write("run_dir: x\ndata: {manifest: m}\nlisa: null\n")
    assert load_config(file).lisa is None
    assert load_config(file, ["lisa.weight=0.5"]).lisa.weight == 0.5  # switched on again


def test_override_of_one_key_keeps_its_neighbours(write):
    file = write("run_dir: x\ndata: {manifest: m, num_frames: 8}\nlisa: {layer: mid, weight: 0.5}\n")
    config = load_config(file, ["lisa.weight=0.1", "data.frame_stride=2"])
    assert config.lisa.layer == "mid" and config.lisa.weight == 0.1
    assert config.data.num_frames == 8 and config.data.frame_stride == 2


def test_backbone_options_are_the_backbones_own(minimal):
    assert load_config(minimal, ["backbone.options.frames_per_chunk=4"]).backbone.options == {"frames_per_chunk": 4}


def test_override_of_a_mapping_replaces_it(write):
    file = write("run_dir: x\ndata: {manifest: m}\nbackbone: {options: {frames_per_chunk: 4}}\n")
    assert load_config(file, ["backbone.options={variant: fp16}"]).backbone.options == {"variant": "fp16"}


def test_interpolation_is_resolved(write):
    config = load_config(write("run_dir: runs/${seed}\nseed: 7\ndata: {manifest: m}\n"))
    assert config.run_dir == "runs/7"


@pytest.mark.parametrize(
    ("key", "nearest"), [("optimiser", "optimizer"), ("lisa.wieght", "lisa.weight"), ("data.frames", "data.num_frames")]
)
def test_unknown_key_is_refused_with_the_nearest(minimal, write, key, nearest):
    with pytest.raises(UserError, match=rf"override.*unknown key {key}.*did you mean {nearest}\?"):
        load_config(minimal, [f"{key}=1"])
    head, _, rest = key.partition(".")
    tree = {"run_dir": "x", "data": {"manifest": "m"}}
    tree.setdefault(head, {}) if rest else tree.update({head: 1})
    if rest:
        tree[head][rest] = 1
    with pytest.raises(UserError, match=rf"config\.yaml: unknown key {key}.*did you mean {nearest}\?"):
        load_config(write(yaml.safe_dump(tree)))


def test_unknown_key_like_no_other_lists_the_known(minimal):
    with pytest.raises(UserError, match=r"unknown key zzz.*use one of: run_dir, seed"):
        load_config(minimal, ["zzz=1"])


def test_key_below_a_plain_value_is_refused(minimal):
    with pytest.raises(UserError, match=r"seed\.low|seed"):
        load_config(minimal, ["seed.low=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=fast", r"optimizer\.lr: Input should be a valid number"),
        ("training.max_steps=2.5", r"training\.max_steps"),
        ("training.max_steps=0", r"training\.max_steps: .*greater than 0"),
        ("data.size=64", r"data\.size"),
        ("lisa=off", r"lisa"),
        ("data=null", r"data"),
        ("sampling.sigma_min=900", "sigma_min must be below"),
        ("seed", "not an override"),
        ("--seed=1", "not an override"),
        ("=1", "unknown key|not an override"),
        ("data.size=[64", "cannot read|not YAML"),
        ("run_dir=${nowhere}", "nowhere"),
    ],
)
def test_wrong_override_is_one_message(minimal, override, message):
    with pytest.raises(UserError, match=message) as info:
        load_config(minimal, [override])
    assert "Remedy:" in str(info.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "run_dir: [\n", "", "data: {manifest: m}\n", "just words\n"])
def test_wrong_file_is_one_message(write, text):
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_config(write(text))


def test_missing_file_is_one_message(tmp_path):
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "none.yaml")


def test_dumped_config_is_read_back_equal(minimal, tmp_path):
    for overrides in ([], ["lisa=null", "data.size=[64,96]", "optimizer.lr=3e-5", "backbone.options={variant: fp16}"]):
        config = load_config(minimal, overrides)
        (tmp_path / "dump.yaml").write_text(dump_config(config))
        assert load_config(tmp_path / "dump.yaml") == config


def test_a_file_extends_another_one(write, tmp_path):
    (tmp_path / "base.yaml").write_text("run_dir: runs/x\ndata: {manifest: m, num_frames: 8}\n", encoding="utf-8")
    (tmp_path / "mid").mkdir()
    (tmp_path / "mid/mid.yaml").write_text("extends: ../base.yaml\ndata: {size: [64, 96]}\n", encoding="utf-8")
    config = load_config(write("extends: mid/mid.yaml\nrun_dir: runs/y\n"), ["data.num_frames=4"])
    assert (config.run_dir, config.data.manifest) == ("runs/y", "m")
    assert (config.data.num_frames, config.data.size) == (4, (64, 96))


@pytest.mark.parametrize(
    ("text", "message"), [("extends: config.yaml\n", "extends itself"), ("extends: nowhere.yaml\n", "no such config")]
)
def test_extending_nothing_or_itself_is_refused(write, text, message):
    with pytest.raises(UserError, match=message):
        load_config(write(text))
