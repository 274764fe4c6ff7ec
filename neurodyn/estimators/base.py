"""What the estimators share: scikit-learn's base class, seeds, and folders that hold no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neurodyn.checkpoints import FORMAT, check_format, package_version, read_json, write_json
from neurodyn.runs import resolved


def _bases() -> tuple[Any, Any]:
    try:
        import sklearn.base
    except ImportError as error:
        raise ImportError("neurodyn.estimators needs scikit-learn: pip install 'neurodyn[estimators]'") from error
    return sklearn.base.BaseEstimator, sklearn.base.ClassifierMixin


if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.base import ClassifierMixin as ClassifierMixin
else:
    BaseEstimator, ClassifierMixin = _bases()


class Estimator(BaseEstimator):
    """A scikit-learn estimator that is saved as a folder of weights (safetensors) and JSON, and loaded from it."""

    def save(self, path: Path | str) -> Path:
        """Write the fitted estimator to a folder, made if it is not there; returns it.

        Raises:
            sklearn.exceptions.NotFittedError: before `fit`.
            ValueError: an argument that JSON cannot hold, named.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        path = Path(path)
        params = resolved(self.get_params(deep=False))
        path.mkdir(parents=True, exist_ok=True)
        fitted = self._write(path)
        card = {"format": FORMAT, "class": type(self).__name__, "neurodyn": package_version()}
        write_json(path / "estimator.json", card | {"params": params, "fitted": fitted})
        return path

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote. Nothing in the folder is executed.

        Raises:
            FileNotFoundError: there is no such folder or file.
            ValueError: the folder holds another class or a later format, or its files are damaged.
        """
        path = Path(path)
        card = read_json(path / "estimator.json")
        if card.get("class") != cls.__name__:
            raise ValueError(f"{path} holds a {card.get('class')}, and a {cls.__name__} was to be loaded")
        check_format(card, path)
        try:
            estimator = cls(**card["params"])
            estimator._read(path, card["fitted"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}/estimator.json does not describe a {cls.__name__}: {error}") from None
        return estimator

    def _write(self, path: Path) -> dict[str, Any]:
        """Write what JSON cannot hold, and return the rest of what `fit` found."""
        raise NotImplementedError

    def _read(self, path: Path, fitted: dict[str, Any]) -> None:
        """Take what `_write` wrote and returned."""
        raise NotImplementedError


def seed_of(random_state: Any) -> int:
    """A seed from scikit-learn's `random_state`: a whole number as it is, else drawn from what it stands for."""
    from sklearn.utils import check_random_state

    if isinstance(random_state, int):
        return random_state
    return int(check_random_state(random_state).randint(2**31 - 1))
