"""What a race leaves behind, a folder for each seed and arm.

seed-0/floor/found-000000.npz     findings with the frozen network alone
seed-0/ARM/found-000100.npz       findings at a checkpoint; videos.npz: the samples of the newest
seed-0/ARM/curve.jsonl            mean training losses between checkpoints
seed-0/ARM/run.json               how far training has come and what it was made with; renewed at each checkpoint
seed-0/ARM/config.yaml, weights   the newest average of the branch, as a run that `lisa-video eval` and `sample` take;
                                  weights_at/step-00000100: that of each checkpoint
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convergence.examine import Findings
from lisa_video.config.load import dump_config
from lisa_video.config.schema import RunConfig
from lisa_video.models.backbone import BackboneParts, SideBranch
from lisa_video.models.weights import conditioning_contract, save_weights, weights_folder

FLOOR = "floor"


class Records:
    """The records of one seed.

    Args:
        folder: of the seed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished(self, arm: str) -> bool:
        """Whether an arm was trained to its last step, or as long as it was given."""
        return bool(self.facts(arm).get("finished"))

    def facts(self, arm: str) -> dict[str, Any]:
        """What `run.json` says; empty before the first checkpoint."""
        file = self.folder / arm / "run.json"
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return facts

    def steps(self, arm: str) -> set[int]:
        """Checkpoints that were examined."""
        return {int(path.stem.removeprefix("found-")) for path in (self.folder / arm).glob("found-*.npz")}

    def found(self, arm: str, step: int) -> Path:
        """File of the findings at a checkpoint."""
        return self.folder / arm / f"found-{step:06d}.npz"

    def losses(self, arm: str) -> list[dict[str, Any]]:
        """Mean training losses, one entry a checkpoint."""
        text = (self.folder / arm / "curve.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def forget(self, arm: str) -> None:
        """Remove what a killed race has left of an arm."""
        shutil.rmtree(self.folder / arm, ignore_errors=True)

    def keep(self, arm: str, step: int, findings: Findings, ids: tuple[str, ...]) -> None:
        """The findings of each checkpoint, and the samples of the newest."""
        found = {"xy": findings.xy, "score": findings.score, "errors": findings.errors, "misled": findings.misled}
        (self.folder / arm).mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.found(arm, step), **found, ids=np.array(ids))
        np.savez(self.folder / arm / "videos.npz", videos=findings.videos, ids=np.array(ids), step=step)

    def keep_weights(self, arm: str, step: int, branch: SideBranch, config: RunConfig, parts: BackboneParts) -> None:
        """The branch as a run exports it, with the run's config."""
        folder = self.folder / arm
        own = config.model_copy(update={"run_dir": str(folder)})
        (folder / "config.yaml").write_text(dump_config(own), encoding="utf-8")
        for place in (weights_folder(folder, step), weights_folder(folder)):
            save_weights(place, branch, conditioning_contract(own, parts), {"step": step})

    def add_losses(self, arm: str, step: int, losses: dict[str, float]) -> None:
        """Mean training losses since the last checkpoint."""
        with open(self.folder / arm / "curve.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **losses}) + "\n")

    def write_facts(self, arm: str, facts: dict[str, Any]) -> None:
        """Renew `run.json`."""
        new = self.folder / arm / "run.json.tmp"
        new.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        new.replace(self.folder / arm / "run.json")


def read_seeds(folder: Path, arms: list[str]) -> dict[int, Records]:
    """Seeds of which every arm has been examined at least once, by number, in order."""
    numbers = sorted(int(path.name.removeprefix("seed-")) for path in folder.glob("seed-*"))
    records = {number: Records(folder / f"seed-{number}") for number in numbers}
    return {number: of for number, of in records.items() if all(of.facts(arm) for arm in arms)}


def common_steps(seeds: dict[int, Records], arm: str) -> list[int]:
    """Checkpoints that an arm has with all seeds, ascending."""
    examined = [records.steps(arm) for records in seeds.values()]
    return sorted(set.intersection(*examined)) if examined else []
