"""One training step of one latent SDE, written for every library that can take it."""
