"""`SignatureRegression`: a target that a path drives, by Lasso or ridge on signatures of the path so far (SigLasso).

If y solves dy = F(y) dx, then y_t is close to a linear function of the signature of x over [0, t], so every observed
target is one line of a linear regression, whenever it was observed. scikit-learn's estimators do the rest.

Source: Bleistein, Fermanian, Jannot and Guilloux (2023), "Learning the dynamics of sparsely observed interacting
systems", ICML, arXiv 2301.11647.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from neurodyn.nets.paths import held
from neurodyn.nets.signatures import level_scales, signature_size
from neurodyn.nets.tensor_algebra import Levels, prefix_levels

Array = np.ndarray[Any, Any]
LARS_STEPS = 100
CHUNK = 20_000_000
"""Numbers that are held at once while signatures are computed."""


def _bases() -> tuple[Any, Any]:
    try:
        import sklearn.base
    except ImportError as error:
        raise ImportError("SignatureRegression needs scikit-learn: pip install 'neurodyn[signatures]'") from error
    return sklearn.base.RegressorMixin, sklearn.base.BaseEstimator


if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, RegressorMixin
else:
    RegressorMixin, BaseEstimator = _bases()


class SignatureRegression(RegressorMixin, BaseEstimator):
    """Linear regression of targets on signatures of the path up to them: a scikit-learn estimator.

    The path of a series is time, then its channels, linear between visits. A prefix ends at the target's time: after
    the last visit by then the channels stay, and time goes on, so nothing later is read. Channels are divided by their
    mean total variation over the training series, a number that does not depend on the series.

    Args:
        depth: level N of the signatures; if None, the one from 1 to `max_depth` with the best cross-validation, in
            which a series is on one side of a fold with all its targets.
        max_depth: see `depth`.
        penalty: "lasso" or "ridge", their strength chosen in the same folds. The Lasso's whole path of solutions is
            followed (LARS), up to 100 steps: words of one level are so alike that coordinate descent takes long, and
            stops at penalties that are too large.
        level_weights: whether level k counts k! times, which evens out the factorial decay of signatures: the penalty
            of the paper's theory. Its code has it off, too, unless asked.
        start: whether the value of the channels at the first visit counts, and not only how they move: the path then
            comes from zero.
        cv: folds.

    Attributes, after `fit`:
        depth_: the level. regression_: the fitted scikit-learn model. scale_: (C,), what channels are divided by.
    """

    def __init__(
        self,
        depth: int | None = None,
        *,
        max_depth: int = 4,
        penalty: str = "lasso",
        level_weights: bool = False,
        start: bool = False,
        cv: int = 5,
    ) -> None:
        self.depth = depth
        self.max_depth = max_depth
        self.penalty = penalty
        self.level_weights = level_weights
        self.start = start
        self.cv = cv

    def fit(self, X: Any, y: Any, *, times: Any = None, target_times: Any = None) -> Self:  # noqa: N803
        """Fit to n series.

        Args:
            X: (n, T) or (n, T, C) values, NaN where missing (the last value then stays; zero before the first).
            y: (n,) one target each, at the end of the series; or, with `target_times`, (n, M) or (n, M, D), NaN where
                there is none.
            times: (n, T) or (T,), not decreasing; equally spaced on [0, 1] if not given.
            target_times: (n, M) or (M,), of the targets, not before a series' first visit.

        Raises:
            ValueError: shapes that do not fit, infinite values, options out of range.
        """
        from sklearn.utils.validation import check_consistent_length

        self._check_options()
        path, clock = self._read(X, times, reset=True)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = _finite_targets(y, allow_nan=target_times is not None)
        check_consistent_length(path, y)
        moves = path[:, :, 1:].diff(dim=1).abs().sum(1).mean(0)
        self.scale_ = torch.where(moves > 0, moves, torch.ones_like(moves)).numpy()
        when = _target_times(target_times, clock, y)
        self.several_, self.target_shape_ = target_times is not None, y.shape[1:]
        rows = y.reshape(*when.shape, -1)
        known = ~np.isnan(rows).any(-1)
        if known.sum() < 2:
            raise ValueError(f"y: got {int(known.sum())} observed target, want 2 samples or more")
        groups = np.broadcast_to(np.arange(len(path))[:, None], when.shape)[known]
        targets = rows[known]
        depths = range(1, self.max_depth + 1) if self.depth is None else [self.depth]
        best = None
        deepest = self._design(path, clock, when, depths[-1])[known]  # its first words are the shallower ones
        for depth in depths:
            design = deepest[:, : signature_size(path.shape[-1], depth)]
            model, error = self._regress(design, targets, groups)
            if best is None or error < best[0]:
                best = (error, depth, model)
        assert best is not None
        _, self.depth_, self.regression_ = best
        return self

    def predict(self, X: Any, *, times: Any = None, target_times: Any = None) -> Array:  # noqa: N803
        """Targets at the ends of the series, (n,), or at `target_times` (n, M), in the shape of those fitted to.

        Raises:
            ValueError: as in `fit`.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "regression_")
        path, clock = self._read(X, times, reset=False)
        if target_times is None:
            when = clock[:, -1:].numpy()
        else:
            when = _broadcast("target_times", target_times, len(path))
        design = self._design(path, clock, when, self.depth_)
        found = self.regression_.predict(design.reshape(-1, design.shape[-1]))
        found = np.asarray(found).reshape(*when.shape, -1)
        if target_times is None:
            return found[:, 0, 0] if found.shape[-1] == 1 else found[:, 0]
        return found[..., 0] if found.shape[-1] == 1 and len(self.target_shape_) < 2 else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.regressor_tags.poor_score = True  # on features that are no path
        return tags

    def _check_options(self) -> None:
        if self.penalty not in ("lasso", "ridge"):
            raise ValueError(f"penalty: got {self.penalty!r}, want 'lasso' or 'ridge'")
        for name in ("max_depth", "cv", *(["depth"] if self.depth is not None else [])):
            least = 2 if name == "cv" else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, want {least} or more")

    def _read(self, X: Any, times: Any, *, reset: bool) -> tuple[Tensor, Tensor]:  # noqa: N803
        """Path with time (n, T, 1 + C) and its times (n, T), float64."""
        from sklearn.utils import check_array
        from sklearn.utils.validation import validate_data

        accepts: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if reset:
            accepts["ensure_min_samples"] = 2
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 3:
            values = check_array(X, allow_nd=True, **accepts)
            given = values.shape[2]
            if reset:
                self.n_features_in_ = given
            elif given != self.n_features_in_:
                raise ValueError(f"X: got {given} channels, want {self.n_features_in_} as in fit")
        else:
            values = validate_data(self, X, reset=reset, **accepts)[..., None]
        count, length, _ = values.shape
        clock = np.linspace(0.0, 1.0, length) if times is None else times
        clock = torch.as_tensor(_broadcast("times", clock, count)).contiguous()
        if clock.shape[1] != length:
            raise ValueError(f"times: got shape {tuple(clock.shape)}, want ({count}, {length}), one per visit")
        if bool((clock.diff(dim=1) < 0).any()):
            raise ValueError("times: got a series whose times decrease, want sorted ones")
        table = torch.tensor(values)
        filled = held(table, ~table.isnan())
        elapsed = clock - clock[:, :1]
        return torch.cat((elapsed.unsqueeze(-1), filled), -1), clock

    def _design(self, path: Tensor, clock: Tensor, when: Array, depth: int) -> Array:
        """Signatures of the prefixes that end at `when` (n, M), (n, M, size)."""
        scaled = path.clone()
        scaled[:, :, 1:] /= torch.as_tensor(self.scale_)
        if self.start:
            first = scaled[:, :1].clone()
            first[:, :, 1:] = 0.0
            scaled = torch.cat((first, scaled), 1)
        asked = torch.as_tensor(when)
        # rounding must not put a visit after a target of the same time
        slack = 1e-9 * (clock[:, -1:] - clock[:, :1])
        last = (torch.searchsorted(clock, (asked + slack).contiguous(), right=True) - 1).clamp_min(0)
        beyond = (asked - clock.gather(1, last)).clamp_min(0.0)
        size = signature_size(scaled.shape[-1], depth)
        step = max(1, CHUNK // (size * scaled.shape[1]))
        parts = []
        for rows in torch.arange(len(scaled)).split(step):
            parts.append(_prefixes(scaled[rows], last[rows] + self.start, beyond[rows], depth))
        found = torch.cat(parts)
        return (found * level_scales(scaled.shape[-1], depth) if self.level_weights else found).numpy()

    def _regress(self, design: Array, targets: Array, groups: Array) -> tuple[Any, float]:
        """The fitted regression, and its mean squared error in cross-validation."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LassoCV, LassoLarsCV, MultiTaskLassoCV, Ridge
        from sklearn.model_selection import GroupKFold

        count = min(self.cv, len(np.unique(groups)))
        folds = list(GroupKFold(count).split(design, groups=groups))
        single = targets.shape[1] == 1
        goal = targets[:, 0] if single else targets
        if self.penalty == "ridge":
            alphas = np.logspace(-12, 3, 31)
            errors = np.mean([_ridge_errors(design, targets, train, test, alphas) for train, test in folds], 0)
            best = int(errors.argmin())
            return Ridge(alphas[best], solver="svd").fit(design, goal), float(errors[best])
        if single and np.ptp(design, axis=0).any():
            model = LassoLarsCV(cv=folds, max_iter=LARS_STEPS)
        else:  # several targets; or words that never change, among which LARS finds no path
            model = (LassoCV if single else MultiTaskLassoCV)(cv=folds, max_iter=2000, tol=1e-3)
        with warnings.catch_warnings():
            # LARS tells of each word that it leaves out because others say the same
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(design, goal)
        return model, float(model.mse_path_.mean(-1).min())


def _ridge_errors(design: Array, targets: Array, train: Array, test: Array, alphas: Array) -> Array:
    """Mean squared error of ridge on one fold for each penalty, from one singular value decomposition."""
    centre, level = design[train].mean(0), targets[train].mean(0)
    left, size, right = np.linalg.svd(design[train] - centre, full_matrices=False)
    along, seen = left.T @ (targets[train] - level), (design[test] - centre) @ right.T
    shrunk = size[:, None] / (size[:, None] ** 2 + alphas)  # (rank, alphas)
    found = np.einsum("nr,ra,rd->and", seen, shrunk, along) + level
    return np.asarray(((found - targets[test]) ** 2).mean((1, 2)))


def _prefixes(path: Tensor, last: Tensor, beyond: Tensor, depth: int) -> Tensor:
    """Signatures (n, M, size) up to point number `last` (n, M), and then of time alone for `beyond` (n, M)."""
    moves = path.diff(dim=1) if path.shape[1] > 1 else torch.zeros_like(path)
    levels = prefix_levels(moves, depth)
    until = []
    for level in levels:
        level = torch.cat((torch.zeros_like(level[:, :1]), level), 1)
        until.append(level.gather(1, last.unsqueeze(-1).expand(-1, -1, level.shape[-1])))
    return torch.cat(_then_time(until, beyond, path.shape[-1]), -1)


def _then_time(levels: Levels, beyond: Tensor, channels: int) -> Levels:
    """Chen's identity for one more move, of the first channel alone, which adds to words that end in it."""
    found = [level.clone() for level in levels]
    for k in range(1, len(levels) + 1):
        for j in range(1, k + 1):
            passed = (beyond**j / math.factorial(j)).unsqueeze(-1)
            found[k - 1][..., :: channels**j] += passed * levels[k - j - 1] if j < k else passed
    return found


def _broadcast(name: str, times: Any, count: int) -> Array:
    found = np.asarray(times, dtype=np.float64)
    found = np.broadcast_to(found, (count, found.shape[-1])) if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{name}: got shape {found.shape}, want ({count}, number of times), finite")
    return np.array(found)


def _target_times(target_times: Any, clock: Tensor, y: Array) -> Array:
    """(n, M)."""
    if target_times is None:
        if y.ndim > 2:
            raise ValueError(f"y: got shape {y.shape} without target_times, want (n,) or (n, D)")
        return clock[:, -1:].numpy()
    when = _broadcast("target_times", target_times, len(y))
    if y.shape[:2] != when.shape or y.ndim > 3:
        raise ValueError(f"y: got shape {y.shape}, want {when.shape} or {when.shape} and D, as the target_times")
    if (when < clock[:, :1].numpy() - 1e-12).any():
        raise ValueError("target_times: got one before a series' first visit, want none")
    return when


def _finite_targets(y: Any, *, allow_nan: bool) -> Array:
    from sklearn.utils import check_array, column_or_1d

    finite: Any = "allow-nan" if allow_nan else True
    found = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, ensure_all_finite=finite, input_name="y")
    return column_or_1d(found, warn=True) if found.ndim == 2 and found.shape[1] == 1 and not allow_nan else found
