"""The models as scikit-learn estimators: frames in, frames out, clone, pipelines and grid search."""

from neurodyn.estimators.classifier import StableSDEClassifier
from neurodyn.estimators.forecasters import LatentSDEForecaster, LinearSDEForecaster
from neurodyn.estimators.graph import ScotchGraph

__all__ = ["LatentSDEForecaster", "LinearSDEForecaster", "ScotchGraph", "StableSDEClassifier"]
