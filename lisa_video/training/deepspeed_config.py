"""What DeepSpeed is given, derived from our config; said nowhere else by hand."""

from __future__ import annotations

from typing import Any

import torch

from lisa_video.config.schema import RunConfig
from lisa_video.planning.memory import REDUCE_BUCKET


def deepspeed_config(config: RunConfig, num_parameters: int = 0) -> dict[str, Any]:
    """DeepSpeed's dictionary.

    Args:
        config: of the run.
        num_parameters: of the whole model; at stage 3, tensors below a ten-thousandth of it are not split, and a block
            that is used again within a tenth of it stays gathered.
    """
    training, on_gpu = config.training, torch.cuda.is_available()
    in_host_memory = {"device": "cpu", "pin_memory": on_gpu}
    zero: dict[str, Any] = {
        "stage": training.zero_stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": REDUCE_BUCKET,
    }
    if training.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = min(100_000, num_parameters // 10_000)
        zero["stage3_max_reuse_distance"] = min(10**9, num_parameters // 10)
    if training.offload_optimizer:
        zero["offload_optimizer"] = in_host_memory
    if training.offload_parameters:
        zero["offload_param"] = in_host_memory
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "gradient_clipping": config.optimizer.clip_norm,
        "bf16": {"enabled": training.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # it would be compiled first; torch's fused AdamW serves on the CPU
        "wall_clock_breakdown": False,
        "steps_per_print": 10**9,
    }
