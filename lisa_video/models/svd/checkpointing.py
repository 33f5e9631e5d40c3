"""Gradient checkpointing layer by layer: every residual block and every transformer is computed twice.

The stock switch leaves out the temporal halves of the transformers, which hold most of what is kept.
"""

from __future__ import annotations

from functools import partial

from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_layers(net: nn.Module) -> None:
    """Keep the inputs of each layer only, and compute the rest again in the backward pass; outputs stay the same."""
    for layer in net.modules():
        if isinstance(layer, SpatioTemporalResBlock | TransformerSpatioTemporalModel) and not isinstance(
            layer.forward, partial
        ):
            # There is no dropout, so no random state to keep.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
