"""Reference image and pose sequence -> video. Needs neither DeepSpeed nor the LISA decoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig, SamplingConfig
from lisa_video.diffusion.sampler import guidance_ramp, guide, karras_sigmas, sample_euler
from lisa_video.errors import UserError
from lisa_video.models.backbone import BackboneParts, Condition, SideBranch
from lisa_video.models.build import build_backbone
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.models.weights import check_contract, conditioning_contract, load_weights, weights_folder
from lisa_video.randomness import normal

_logger = logging.getLogger(__name__)


@final
class PoseVideoPipeline:
    """Samples videos with a frozen backbone and a side branch.

    Args:
        parts: backbone and codec.
        branch: trained side branch.
        contract: the conditioning contract of its training, checked against `parts`.
        sampling: steps, noise levels, guidance.
        where: named in error messages.

    Raises:
        UserError: the contract does not fit the backbone.
    """

    def __init__(
        self,
        parts: BackboneParts,
        branch: SideBranch,
        contract: dict[str, Any],
        sampling: SamplingConfig,
        where: Path = Path("contract"),
    ) -> None:
        check_contract(contract, parts, where)
        self.codec, self.contract, self.sampling = parts.codec, contract, sampling
        self.denoiser = ControlledDenoiser(parts.backbone, branch)

    @classmethod
    def from_run(
        cls,
        run_dir: str | Path,
        device: torch.device | str = "cpu",
        overrides: Sequence[str] = (),
        step: int | None = None,
        parts: BackboneParts | None = None,
    ) -> PoseVideoPipeline:
        """Load the newest exported weights of a run, or those that it kept at a step.

        Args:
            run_dir: of the run.
            device: where to sample.
            overrides: of the run's settings.
            step: of the weights; None: the newest.
            parts: backbone and codec of the run, if they are loaded already.

        Raises:
            UserError: not a run, or a run without weights yet.
        """
        run_dir = Path(run_dir)
        if not (run_dir / "config.yaml").is_file():
            raise UserError("not a run: no config.yaml", where=run_dir, remedy="name the run_dir of a training run")
        config = load_config(run_dir / "config.yaml", overrides)
        weights = weights_folder(run_dir, step)
        branch, contract = load_weights(weights, config.backbone.name)
        parts = parts or build_backbone(config.backbone)
        parts.backbone.to(device)
        parts.codec.to(device)
        return cls(parts, branch.to(device), contract, config.sampling, weights)

    @classmethod
    def untrained(cls, config: RunConfig, parts: BackboneParts, branch: SideBranch) -> PoseVideoPipeline:
        """A pipeline around a branch in training, under the contract of its own run."""
        return cls(parts, branch, conditioning_contract(config, parts), config.sampling)

    @torch.no_grad()
    def __call__(
        self,
        reference: Float[Tensor, "B 3 H W"],
        pose_maps: Float[Tensor, "B F 3 H W"] | None,
        fps: Float[Tensor, " B"],
        *,
        seed: int,
        keys: Sequence[int | str],
        num_frames: int | None = None,
        on_step: Callable[[int], object] | None = None,
    ) -> UInt8[Tensor, "B F H W 3"]:
        """Sample B clips.

        Args:
            reference: first frames, in [-1, 1].
            pose_maps: drawn skeletons in [0, 1]; None samples the frozen network alone.
            fps: frames per second of the clips.
            seed: with `keys`, decides the noise; a clip's noise does not depend on its batch.
            keys: one name or number a clip.
            num_frames: F, needed only without pose maps.
            on_step: called after each step, for progress bars.

        Returns:
            RGB frames in [0, 255], on the CPU.
        """
        frames = pose_maps.shape[1] if pose_maps is not None else (num_frames or self.contract["num_frames"])
        self._warn_if_unusual(frames, reference.shape[-2:])
        device = next(self.denoiser.parameters()).device
        reference, fps = reference.to(device), fps.to(device)
        pose_maps = pose_maps.to(device) if pose_maps is not None else None
        condition = self.codec.encode_reference(
            reference,
            normal(reference.shape[1:], seed, keys, "sampling reference", device),
            fps,
            noise_aug_strength=self.contract["noise_aug_strength"],
            motion_bucket_id=self.contract["motion_bucket_id"],
        )
        noise = normal((frames, *condition.image_latents.shape[1:]), seed, keys, "sampling", device)
        settings = self.sampling
        sigmas = karras_sigmas(settings.num_steps, settings.sigma_min, settings.sigma_max)
        latents = sample_euler(self._denoise(condition, pose_maps, frames), noise, sigmas, on_step)
        return self._pixels(latents)

    @torch.no_grad()
    def reconstruct(self, frames: Float[Tensor, "B F 3 H W"]) -> UInt8[Tensor, "B F H W 3"]:
        """Frames in [-1, 1] through the codec and back: how good a sample could look at best."""
        return self._pixels(self.codec.encode_video(frames.to(next(self.denoiser.parameters()).device)))

    def _pixels(self, latents: Float[Tensor, "B F C h w"]) -> UInt8[Tensor, "B F H W 3"]:
        pixels = self.codec.decode_video(latents).clamp(-1, 1)
        return rearrange((pixels + 1) * 127.5, "b f c h w -> b f h w c").round().to(torch.uint8).cpu()

    def _denoise(
        self, condition: Condition, pose_maps: Tensor | None, num_frames: int
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The (guided) estimate of the clean latents as a function of noisy latents and noise level."""
        settings, process = self.sampling, self.denoiser.backbone.process

        def estimate(x_s: Tensor, s: Tensor, told: Condition, pose: Tensor | None, pose_scale: float = 1.0) -> Tensor:
            # What the branch changes is the score of the likelihood of the pose (method.md), so it can be scaled.
            found = self.denoiser(x_s, s, told, pose, align=False, with_frozen=pose_scale != 1.0)
            scaled = found.controlled if found.frozen is None else found.frozen.lerp(found.controlled, pose_scale)
            return process.denoised(scaled, x_s, s)

        low, high = settings.pose_guidance_range or (0.0, math.inf)

        def told_all(x_s: Tensor, s: Tensor) -> Tensor:
            insists = low <= s[0].item() <= high  # all clips are at one level
            return estimate(x_s, s, condition, pose_maps, settings.pose_guidance if insists else 1.0)

        if settings.guidance_first == settings.guidance_last == 1.0:
            return told_all

        scale = guidance_ramp(settings.guidance_first, settings.guidance_last, num_frames)
        # As in SVD's pipeline, the unconditional half has neither embedding nor image latents.
        untold = Condition(
            torch.zeros_like(condition.image_latents), torch.zeros_like(condition.image_embedding), condition.time_ids
        )
        other_pose = None if settings.unconditional_pose == "none" else pose_maps
        if other_pose is not None and settings.unconditional_pose == "blank":
            other_pose = torch.zeros_like(other_pose)

        def guided(x_s: Tensor, s: Tensor) -> Tensor:
            return guide(told_all(x_s, s), estimate(x_s, s, untold, other_pose), scale)

        return guided

    def _warn_if_unusual(self, num_frames: int, size: torch.Size) -> None:
        trained = (self.contract["num_frames"], tuple(self.contract["size"]))
        if (num_frames, tuple(size)) != trained:
            _logger.warning(
                "sampling %d frames of %s px; trained on %d frames of %s px", num_frames, tuple(size), *trained
            )
