"""The trainer: builds the parts and runs the loop."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from tqdm import tqdm

from lisa_video import distributed
from lisa_video.conditioning import EncodedBatch, encode_batch
from lisa_video.config.schema import RunConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.data.cache_source import check_codec
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import build_loader
from lisa_video.held_out_loss import HeldOutLoss
from lisa_video.models.build import (
    build_backbone,
    build_denoiser,
    build_sigmas,
    check_size,
    checkpoint_activations,
    parameter_counts,
)
from lisa_video.models.weights import (
    codec_digest,
    conditioning_contract,
    save_weights,
    weights_digest,
    weights_folder,
    with_weights,
    without_weights,
)
from lisa_video.objective import Objective, build_lisa_weight
from lisa_video.training.checkpoint import Checkpoints
from lisa_video.training.diagnostics import held_out_metrics
from lisa_video.training.ema import MovingAverage
from lisa_video.training.engine import Engine
from lisa_video.training.gradient_probe import probe_gradients
from lisa_video.training.graphs import capture
from lisa_video.training.metrics import LossMeter, MetricsLog, drop_rows_after, read_rows
from lisa_video.training.preview import Preview
from lisa_video.training.run_dir import check_same_data, claim_run_dir, data_digests
from lisa_video.training.stopping import RunStoppedError, StopRequest
from lisa_video.training.telemetry import Telemetry
from lisa_video.training.tracker import Tracker
from lisa_video.training.trouble import Seen, Trouble, seen_clips
from lisa_video.training.watchdog import Watchdog

_logger = logging.getLogger(__name__)


@final
class Trainer:
    """One run: from its config to its exported weights. Call it again after a kill and it goes on exactly.

    Args:
        config: of the run; must be the one that the run_dir was started with.

    Raises:
        UserError: anything that the user can mend, before training starts.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config, self.run_dir = config, Path(config.run_dir)
        parts = build_backbone(config.backbone)
        check_size(config, parts)
        if config.data.cache is not None:
            check_codec(config.data.cache, codec_digest(parts))
        self.codec = parts.codec.to(distributed.local_device())
        self.model = build_denoiser(config, parts)
        self.parameters = parameter_counts(self.model)
        self._shell = without_weights(self.model.branch)
        checkpoint_activations(self.model, config.training.gradient_checkpointing)
        self.contract = conditioning_contract(config, parts)
        weight, every = build_lisa_weight(config.lisa), config.lisa.every if config.lisa is not None else 1
        self.objective = Objective(parts.backbone.process, build_sigmas(config.noise), weight, config.seed, every)
        claim_run_dir(self.run_dir, config)
        if config.training.compile:
            self.model.compile()
        self.engine = Engine(self.model, config)
        self.average = MovingAverage(self.engine, config.optimizer.ema_decay)
        folder = self.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, config.training, self.engine, self.average)
        self.meter = LossMeter()
        state = self.checkpoints.load() or {"step": 0, "samples_seen": 0, "seconds": 0.0}
        self.data = data_digests(config.data)
        check_same_data(state.get("data", self.data), self.data, config.data)
        self.step: int = state["step"]
        self.samples_seen: int = state["samples_seen"]
        self.seconds: float = state["seconds"]  # spent in training steps
        self._tell_other_batch(state.get("clips_per_step", self.clips_per_step))
        self._captured, self._rate = False, 0.0
        self._last_batch: EncodedBatch | None = None  # for the probe of gradients
        self.meter.load_state_dict(state.get("meter", []))
        self.trouble = Trouble(self.run_dir, config.training, self.step)
        if "trouble" in state:
            self.trouble.load_state_dict(state["trouble"])
        self.watchdog = Watchdog(self.run_dir, config.training.watchdog_seconds)
        name = config.diagnostics.tracker
        tracker = Tracker(name, self.run_dir, config) if name is not None and distributed.is_main() else None
        self.log = MetricsLog(self.run_dir, self.step, tracker)
        self.telemetry = Telemetry(config, distributed.local_device(), self.clips_per_step)
        self.telemetry.report(self.step, self.seconds)  # from here on
        drop_rows_after(self._skipped_file, self.step)
        self.preview = Preview(config, parts, self.model.branch) if config.preview.every else None
        seen = config.diagnostics
        self.held_out = (
            HeldOutLoss(config, self.codec, num_clips=seen.held_out_clips, num_levels=seen.held_out_levels)
            if seen.held_out_every
            else None
        )

    @property
    def clips_per_step(self) -> int:
        """Clips of one optimizer step over all ranks."""
        training = self.config.training
        return training.micro_batch_size * training.gradient_accumulation * distributed.world_size()

    def _tell_other_batch(self, before: int) -> None:
        if before != self.clips_per_step and distributed.is_main():
            _logger.warning(
                "a step has %d clips now and had %d before: training.micro_batch_size and "
                "training.gradient_accumulation can make up for another number of ranks", self.clips_per_step, before,
            )  # fmt: skip

    def run(self) -> None:
        """Train to `max_steps`, with reports, previews and checkpoints on the way.

        Raises:
            RunStoppedError: a signal asked for it; a checkpoint of the last step is saved.
        """
        training = self.config.training
        if distributed.is_main():
            self._done_file.unlink(missing_ok=True)
        frozen = weights_digest(self.model.backbone, self.engine.gathered)
        batches = self._batches()
        with (
            StopRequest() as stop,
            self.watchdog,
            tqdm(
                total=training.max_steps,
                initial=self.step,
                desc=self.run_dir.name,
                unit="step",
                disable=not distributed.is_main(),
            ) as bar,
        ):
            while self.step < training.max_steps:
                started = time.perf_counter()
                clips_left_out = self.trouble.left_out
                self.train_step(batches)
                self.seconds += time.perf_counter() - started
                if self.trouble.left_out != clips_left_out:
                    batches = self._batches()  # what was loaded ahead may hold them
                bar.update()
                self.watchdog.mark("report, preview and checkpoint", self.step)
                if self._due(training.log_every):
                    bar.set_postfix(self._report())
                if self.preview is not None and self._due(self.config.preview.every):
                    bar.set_postfix(self._preview())
                if self.held_out is not None and self._due(self.config.diagnostics.held_out_every):
                    bar.set_postfix(self._measure_held_out(self.held_out))
                if self.config.diagnostics.gradients_every and self._due(self.config.diagnostics.gradients_every):
                    assert self._last_batch is not None
                    self.log.write(self.step, probe_gradients(self.objective, self.model, self._last_batch))
                if training.export_every and self._due(training.export_every):
                    self._export(weights_folder(self.run_dir, self.step))
                stopping = stop.anywhere()
                if self._due(training.checkpoint_every) or stopping or self.trouble.is_too_much:
                    self._save()
                if self.trouble.is_too_much:
                    self.checkpoints.finish()
                    raise self.trouble.error()
                self.checkpoints.poll()
                if stopping and self.step < training.max_steps:
                    self.checkpoints.finish()
                    self.log.close()
                    raise RunStoppedError(f"stopped after step {self.step} of {training.max_steps}")
            self.checkpoints.finish()
        self._check_weights(frozen)
        self._finish(frozen)

    def train_step(self, batches: Iterator[ClipBatch]) -> None:
        """One optimizer step: losses of each micro-batch, gradients, step, moving average."""
        timed = self.telemetry.part
        # 1. the rate of this step
        steps_left = self.config.training.max_steps - self.step
        self._rate = self.engine.set_rate(self.samples_seen, steps_left * self.clips_per_step)
        # 2. losses and gradients
        accumulation = self.config.training.gradient_accumulation
        seen: list[Seen] = []
        for number in range(accumulation):
            self.watchdog.mark("loading clips", self.step + 1)
            with timed("data"):
                batch = self._next(batches)
            self.watchdog.mark("forward pass", self.step + 1, batch.clip_ids)
            with timed("encode"):
                encoded = encode_batch(self.codec, batch, self.config.conditioning, self.config.seed)
            if self.config.training.cuda_graphs and not self._captured:
                capture(self.model, encoded)
                self._captured = True
            with timed("forward"):
                terms = self.objective(self.engine.module, encoded, self.step * accumulation + number)
            self.watchdog.mark("backward pass and step", self.step + 1)
            self.engine.backward_and_step(terms.total, timed)
            self.meter.add(terms)
            self._last_batch = encoded if self.config.diagnostics.gradients_every else None
            seen += seen_clips(batch.clip_ids, batch.positions, terms)
        # 3. what is kept
        if self.engine.step_applied:
            with timed("average"):
                self.average.update()
        else:
            self.trouble.note(self.step + 1, seen)
        self.step, self.samples_seen = self.step + 1, self.samples_seen + self.clips_per_step

    def _next(self, batches: Iterator[ClipBatch]) -> ClipBatch:
        batch = next(batches)
        for skipped in batch.skipped:
            _logger.warning("skipped clip %s: %s", skipped.clip_id, skipped.reason)
            with open(self._skipped_file, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step + 1, **skipped._asdict()}) + "\n")
        return batch.to(distributed.local_device())

    def _batches(self) -> Iterator[ClipBatch]:
        data, training = self.config.data, self.config.training
        dataset = PoseClipDataset.for_training(data, self.config.seed, self.trouble.left_out)
        if dataset.plan.num_left_out and distributed.is_main():
            _logger.warning("clips in no bucket are left out: %s", dataset.plan.describe())
        loader = build_loader(
            dataset,
            num_clips=len(dataset),
            members=dataset.members,
            micro_batch_size=training.micro_batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            start_position=self.samples_seen,
            seed=self.config.seed,
            num_workers=data.num_workers,
            pin_memory=distributed.local_device().type == "cuda",
        )
        return iter(loader)

    @property
    def _skipped_file(self) -> Path:
        return self.run_dir / f"skipped-rank{distributed.rank()}.jsonl"

    @property
    def _done_file(self) -> Path:
        return self.run_dir / "done.json"

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.training.max_steps

    def _report(self) -> dict[str, str]:
        values: dict[str, Any] = self.meter.report()
        values |= {"nonfinite_steps": self.trouble.steps, "seconds": round(self.seconds, 3)}
        values["learning_rate"] = self._rate
        if math.isfinite(self.engine.gradient_norm):
            values["gradient_norm"] = self.engine.gradient_norm
        values["clips_skipped"] = sum(distributed.gather(len(read_rows(self._skipped_file))))
        self.log.write(self.step, values)
        speed = self.telemetry.report(self.step, self.seconds)
        self.log.write_speed(self.step, speed)
        shown = ("denoising", "lisa_ratio", "clips_skipped", "nonfinite_steps", "clips_per_second")
        return {name: f"{(values | speed)[name]:.4g}" for name in shown if (values | speed).get(name)}

    def _preview(self) -> dict[str, str]:
        assert self.preview is not None
        with self.average.in_module():
            accuracy = self.preview(self.run_dir / "previews", self.step)
        if accuracy:
            self.log.write(self.step, accuracy)
        return {name: f"{value:.3f}" for name, value in accuracy.items()}

    def _measure_held_out(self, held_out: HeldOutLoss) -> dict[str, str]:
        with self.average.in_module():
            values = held_out_metrics(held_out(self.model))
        self.log.write(self.step, values)
        return {name: f"{values[name]:.4f}" for name in ("held_out", "held_out_ratio", "pose_gap")}

    def _save(self) -> None:
        # Weights first: whatever a checkpoint says is done has been published.
        self._export(weights_folder(self.run_dir))
        facts = {
            "samples_seen": self.samples_seen,
            "seconds": self.seconds,
            "clips_per_step": self.clips_per_step,
            "data": self.data,
            "meter": self.meter.state_dict(),
            "trouble": self.trouble.state_dict(),
            "config": self.config.model_dump(mode="json"),
            "contract": self.contract,
        }
        self.checkpoints.save(self.step, facts)

    def _export(self, folder: Path) -> None:
        average = self.average.whole()
        if distributed.is_main():
            branch = with_weights(self._shell, average, prefix="branch.")
            facts = {"step": self.step, "seconds": self.seconds, "parameters": self.parameters}
            save_weights(folder, branch, self.contract, facts)

    def _check_weights(self, frozen: str) -> None:
        """What training must not do: change the frozen network, or let the ranks drift apart."""
        if weights_digest(self.model.backbone, self.engine.gathered) != frozen:
            raise RuntimeError("the frozen network changed during training")
        if len(set(distributed.gather(weights_digest(self.model.trainable, self.engine.gathered)))) > 1:
            raise RuntimeError("the trained weights differ between ranks")

    def _finish(self, frozen: str) -> None:
        self.log.close()
        if distributed.is_main():
            facts = {
                "step": self.step,
                "clips_per_step": self.clips_per_step,
                "ranks": distributed.world_size(),
                "seconds": self.seconds,
                "frozen_digest": frozen,
                "parameters": self.parameters,
            }
            self._done_file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        distributed.barrier()
