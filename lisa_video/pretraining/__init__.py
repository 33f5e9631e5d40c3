"""Training of frozen networks: the embedded tiny base (VAE, UNet), the keypoint network, bases of experiments."""
