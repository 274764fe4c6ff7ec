"""Metrics: functions of arrays, and of a forecast against what then happened."""

from neurodyn.metrics.divergence import neighbour_kl
from neurodyn.metrics.forecasts import Scores, evaluate, score

__all__ = ["Scores", "evaluate", "neighbour_kl", "score"]
