"""Metrics: functions of arrays, and of a forecast against what then happened."""

from neurodyn.metrics.divergence import neighbour_kl
from neurodyn.metrics.forecasts import Scores, evaluate, score
from neurodyn.metrics.graphs import graph_scores

__all__ = ["Scores", "evaluate", "graph_scores", "neighbour_kl", "score"]
