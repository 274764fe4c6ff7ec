"""neurodyn: neural SDEs and latent dynamics."""

__version__ = "0.1.0"
