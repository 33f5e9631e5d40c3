"""Training of the embedded tiny base: VAE, image-to-video UNet and keypoint network."""
