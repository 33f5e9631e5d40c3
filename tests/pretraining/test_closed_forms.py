"""The closed-form starts of the embedded VAE and UNet do what they claim, through the real layers."""

import torch
import torch.nn.functional as F

from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import tiny_unet, tiny_vae
from lisa_video.pretraining.base_init import fit_still_picture, initialise_as_still_picture
from lisa_video.pretraining.vae import reconstruction_psnr
from lisa_video.pretraining.vae_init import channel_pairs, initialise_by_pca, patch_pca

GROUPS = 8


def smooth_pictures(count, seed):
    coarse = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(-1, 1)


def pca_vae():
    torch.manual_seed(0)
    vae = tiny_vae((32, 64, 64, 64), 16)
    set_norm_groups(vae, GROUPS)
    initialise_by_pca(vae, smooth_pictures(24, 0), GROUPS)
    return vae.eval()


def test_the_encoder_computes_principal_components_through_the_real_layers():
    vae, pictures = pca_vae(), smooth_pictures(4, 1)
    mean, directions, deviations = patch_pca(smooth_pictures(24, 0), 8, 16)
    patches = F.unfold(pictures, 8, stride=8) - mean.view(1, -1, 1)
    scale = deviations.sqrt() / deviations.sqrt().square().mean().sqrt()
    expected = (directions / deviations[:, None] * scale[:, None]) @ patches
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode().flatten(2)
    # The last normalisation scales by an almost constant factor only.
    torch.testing.assert_close(latents, expected, rtol=0.1, atol=0.05 * expected.abs().max().item())
    assert torch.corrcoef(torch.stack([latents.flatten(), expected.flatten()]))[0, 1] > 0.995


def test_decoder_starts_as_a_good_linear_reconstruction_of_unseen_pictures():
    unseen = smooth_pictures(4, 2)
    psnr = reconstruction_psnr(pca_vae(), unseen[:, None])
    blocks = F.interpolate(F.avg_pool2d(unseen, 8), scale_factor=8.0)
    of_blocks = -10 * torch.log10(F.mse_loss(blocks / 2, unseen / 2))
    assert psnr > of_blocks + 3


def test_pairs_are_disjoint_and_leave_carriers_in_every_group_that_they_use():
    slots = channel_pairs(64, GROUPS, 16)
    taken = [slot for pair in slots for slot in pair]
    assert len(set(taken)) == 32
    for group in range(GROUPS):
        assert sum(slot // 8 == group for slot in taken) == 4


def test_unet_starts_as_the_fitted_linear_map():
    torch.manual_seed(0)
    unet = tiny_unet((64, 32, 32, 32), latent_channels=16, num_frames=2)
    set_norm_groups(unet, GROUPS)
    u, reference = torch.randn(2, 2, 16, 8, 8), torch.randn(2, 16, 8, 8)
    target = -0.7 * reference[:, None] + 0.2 * u
    fit = fit_still_picture(target, u, reference)
    torch.testing.assert_close(fit, torch.tensor([[-0.7, 0.2]]).expand(16, 2))
    initialise_as_still_picture(unet, fit)
    sample = torch.cat([u, reference[:, None].expand(-1, 2, -1, -1, -1)], dim=2)
    with torch.no_grad():
        out = unet(sample, torch.zeros(2), torch.zeros(2, 1, 64), torch.zeros(2, 3)).sample
    torch.testing.assert_close(out, target, rtol=0.05, atol=0.02)
