"""Laws of paths given data, and of the latent that a forecast starts from."""

from neurodyn.posteriors.base import PathDetail, Posterior, PosteriorPaths
from neurodyn.posteriors.bridge import BridgePosterior
from neurodyn.posteriors.graphs import EdgePosterior
from neurodyn.posteriors.guided import GuidedPosterior
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.posteriors.smoother import SmootherPosterior
from neurodyn.posteriors.start import EncodedStart, FilterStart, Start
from neurodyn.posteriors.underdamped import UnderdampedPosterior

__all__ = [
    "BridgePosterior",
    "EdgePosterior",
    "EncodedStart",
    "FilterStart",
    "GuidedPosterior",
    "MatchedPosterior",
    "PathDetail",
    "Posterior",
    "PosteriorPaths",
    "SimulatedPosterior",
    "SmootherPosterior",
    "Start",
    "UnderdampedPosterior",
]
