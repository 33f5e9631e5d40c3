"""Published weights: whole or absent, read back with their contract, refused by a backbone that does not fit."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.models.build import build_branch
from lisa_video.models.weights import (
    check_contract,
    conditioning_contract,
    load_weights,
    save_weights,
    weights_digest,
)


@pytest.fixture
def saved(tiny_config, tiny_parts, tmp_path):
    branch = build_branch(tiny_config(), tiny_parts)
    contract = conditioning_contract(tiny_config(), tiny_parts)
    save_weights(tmp_path / "weights", branch, contract, {"step": 3})
    return tmp_path / "weights", branch, contract


def test_branch_and_contract_are_read_back(saved, tiny_parts):
    folder, branch, contract = saved
    read, read_contract = load_weights(folder, "svd")
    assert weights_digest(read) == weights_digest(branch)
    assert read_contract == contract
    check_contract(read_contract, tiny_parts, folder)
    assert json.loads((folder / "facts.json").read_text()) == {"step": 3}


def test_decoder_is_not_published(saved):
    folder, _, _ = saved
    assert {path.name for path in folder.rglob("*.safetensors")} == {"diffusion_pytorch_model.safetensors"}
    assert not list(folder.rglob("*decoder*"))


def test_saving_again_replaces_everything_and_leaves_no_draft(saved):
    folder, branch, contract = saved
    (folder / "stale").touch()
    with torch.no_grad():
        branch.conv_in.bias.add_(1)
    save_weights(folder, branch, contract, {"step": 4})
    assert weights_digest(load_weights(folder, "svd")[0]) == weights_digest(branch)
    assert not (folder / "stale").exists() and [path.name for path in folder.parent.glob("weights*")] == ["weights"]


def test_contract_says_what_sampling_must_share(tiny_config, tiny_parts):
    contract = conditioning_contract(tiny_config(), tiny_parts)
    assert contract["backbone"]["time_ids"] == ["fps - 1", "motion_bucket_id", "noise_aug_strength"]
    assert contract["size"] == [32, 32] and contract["num_frames"] == 4
    assert contract["noise_aug_strength"] == 0.02 and contract["motion_bucket_id"] == 127.0


def test_another_latent_scale_is_refused(saved, tiny_parts):
    folder, _, contract = saved
    other = copy.deepcopy(contract)
    other["backbone"]["latent_scaling_factor"] = 0.18215
    with pytest.raises(UserError, match=r"trained with latent_scaling_factor = 0\.18215.*has 1\.0"):
        check_contract(other, tiny_parts, folder)


def test_unknown_fact_is_refused(saved, tiny_parts):
    folder, _, contract = saved
    other = copy.deepcopy(contract)
    other["backbone"]["camera"] = "pinhole"
    with pytest.raises(UserError, match="camera"):
        check_contract(other, tiny_parts, folder)


def test_another_version_is_refused(saved):
    folder, _, contract = saved
    (folder / "contract.json").write_text(json.dumps(contract | {"version": 0}))
    with pytest.raises(UserError, match="contract of version 0"):
        load_weights(folder, "svd")


def test_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="no trained weights"):
        load_weights(tmp_path, "svd")


def test_digest_sees_every_number_and_name():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    digest = weights_digest(net)
    assert weights_digest(copy.deepcopy(net)) == digest and digest.startswith("sha256:")
    assert weights_digest(torch.nn.ModuleDict({"a": net[0], "b": net[1]})) != digest
    with torch.no_grad():
        net[1].bias[1] = torch.nextafter(net[1].bias[1], torch.tensor(9.0))
    assert weights_digest(net) != digest
