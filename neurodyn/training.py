"""`fit`: minimise a model's loss over the rows of a `SeriesBatch`, with everything a real run needs around it.

Each random choice (the order of rows, a step's noise, a validation's noise) comes from a generator seeded by
(seed, purpose, step), so no generator carries state from one step to the next: a run that was killed and resumed goes
through the same numbers as one that was not, and ends in the same bits on the same machine.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neurodyn import parallel
from neurodyn.checkpoints import CheckpointFolder, load_weights
from neurodyn.fit_config import FitConfig
from neurodyn.identity import check_identity, digest
from neurodyn.loss import Loss
from neurodyn.progress import LOG_EVERY, Progress, interrupts
from neurodyn.series import SeriesBatch
from neurodyn.training_log import TrainingLog

__all__ = ["DivergedError", "FitConfig", "FitResult", "Loss", "fit"]

EXPLODED = 1e6  # a loss this many times the parts of the first look has run away
# What may differ between a checkpoint and the run that resumes it.
UNCHECKED = ("progress", "device", "checkpoint_every", "logs")
PARTS = ("log_likelihood", "initial_kl", "path_kl", "filter_loss")


class DivergedError(RuntimeError):
    """Training ran into a loss or a gradient that is not finite, or that grew without bound."""


@dataclass
class FitResult:
    """What `fit` did; the model holds the selected weights."""

    history: list[dict[str, Any]]
    """Records in order of steps: means of the loss's parts over the steps since the last one (log_likelihood,
    initial_kl, path_kl, filter_loss, objective, in nats per series; gradient_norm; kl_weight; learning_rate), and
    validations ({"step", "validation"}; None where the value was not finite)."""
    best_step: int
    """Steps after which the selected weights were reached."""
    best_value: float | None
    """Their validation (mean negative ELBO in nats per series, or what `validate` returned); None without one."""
    stopped: Literal["steps", "patience", "interrupted"]
    """Why training ended."""
    seconds: float
    """Time spent, over all resumed parts of the run."""


def fit(
    model: nn.Module,
    train: SeriesBatch,
    validation: SeriesBatch | None = None,
    config: FitConfig | None = None,
    *,
    folder: Path | str | None = None,
    validate: Callable[[nn.Module, SeriesBatch], float] | None = None,
    augment: Callable[[SeriesBatch, torch.Generator], SeriesBatch] | None = None,
    resume: bool = True,
) -> FitResult:
    """Train a model in place, and leave in it the weights that did best on the validation rows.

    Without validation rows the last weights stay (their moving average if `config.ema` is set). Ctrl-C ends training
    after the step in hand, writes the checkpoint and returns as usual, with `stopped="interrupted"`; a second Ctrl-C
    does not wait for the step. The model is left on the device, and in the precision, it was trained in; the models of
    this package take the batches that they are given there themselves.

    Args:
        model: has `loss(batch, *, generator) -> Loss`.
        train: the rows to train on.
        validation: rows to choose the weights by.
        config: how to train.
        folder: where to write `metrics.jsonl`, the logs that `config.logs` names, and the folder `checkpoint`; nothing
            is written without it. Under torchrun, a folder that all processes see.
        validate: score of the model on the validation rows, lower is better, called without gradients and always with
            the same random numbers; the mean negative ELBO if not given.
        augment: what a step does to its rows before the loss: as many rows, with the step's own generator (on the CPU).
            Validation rows are left as they are.
        resume: go on from the checkpoint in `folder` if there is one; a finished run then returns at once.

    Raises:
        ValueError: the model has nothing to train or its loss has a wrong shape; `validate` without validation rows;
            a checkpoint of another model, data or configuration.
        ImportError: a log whose package is not installed.
        DivergedError: the loss or its gradient is no longer finite, or has exploded. The model then holds the weights
            of the last good checkpoint.
    """
    config = config or FitConfig()
    if validate is not None and validation is None:
        raise ValueError("validation: rows are wanted for the `validate` that was given")
    run = _Run(model, train, validation, config, None if folder is None else Path(folder), validate, augment)
    run.begin(resume)
    forked = [run.device] if run.device.type == "cuda" else []
    # Layers such as dropout draw from torch's global generator, which is seeded at each step inside this fork only.
    with torch.random.fork_rng(devices=forked), interrupts() as interrupted:
        return run.go(interrupted)


class _Run:
    """One training run: the state that a checkpoint holds, and how a step changes it."""

    def __init__(
        self,
        model: nn.Module,
        train: SeriesBatch,
        validation: SeriesBatch | None,
        config: FitConfig,
        folder: Path | None,
        validate: Callable[[nn.Module, SeriesBatch], float] | None,
        augment: Callable[[SeriesBatch, torch.Generator], SeriesBatch] | None,
    ) -> None:
        self.device = parallel.local_device(config.device)
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.model, self.config, self.folder, self.validate = model.to(self.device, dtype), config, folder, validate
        self.augment = augment
        self.train = train.to(dtype=dtype)
        self.validation = None if validation is None else validation.to(device=self.device, dtype=dtype)
        self.data = digest(self.train)
        rows, size = train.num_rows, config.batch_size
        self.chunks = 1 if size == 0 else math.ceil(rows / size)
        if self.chunks == 1 and not parallel.is_parallel():
            self.train = self.train.to(device=self.device)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError(f"model: this {type(model).__name__} has no parameters to train")
        adam = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = adam(self.trained.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
        parallel.same_start(model)
        self.ema = {name: p.detach().clone() for name, p in self.trained.items()} if config.ema else {}
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.log: TrainingLog | None = None
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_value, self.waited = 0, math.inf, 0
        self.scale: float | None = None
        self.stopped: Literal["steps", "patience", "interrupted"] | None = None
        self.seconds, self.started = 0.0, time.monotonic()
        self.pending: list[Tensor] = []
        self.checkpoint = None if folder is None else CheckpointFolder(folder / "checkpoint")
        self.good_step, self.good = 0, self._weights()

    def begin(self, resume: bool) -> None:
        """Start from the checkpoint, or from nothing."""
        if self.folder is None or self.checkpoint is None:
            return
        if resume and self.checkpoint.exists():
            self._restore()
        elif parallel.rank() == 0:
            self.checkpoint.remove()
        if parallel.rank() == 0:  # records after the checkpoint belong to steps that will be made again
            self.log = TrainingLog(self.folder, self.config.logs, self.history)

    def go(self, interrupted: threading.Event) -> FitResult:
        """Make the remaining steps."""
        bar = Progress(self.config.steps, self.config.progress, self.step)
        self.model.train()
        while self.stopped is None:
            if self._asked_to_stop(interrupted):
                self.stopped = "interrupted"
                break
            try:
                numbers = self._backward()
            except KeyboardInterrupt:  # the weights still are those of the last step
                self.stopped = "interrupted"
                break
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # factorising what is not finite
                self._look()
                raise self._diverged(f"a loss that cannot be computed, at step {self.step + 1} ({error})") from None
            self._update()
            self.pending.append(numbers)
            due = self.step == self.config.steps
            if self.validation is not None and (due or self.step % self.config.validate_every == 0):
                self._look()
                self._validate()
            if due:
                self.stopped = self.stopped or "steps"
            if self.stopped or self.step % LOG_EVERY == 0:
                self._look()
            if self.stopped or self.step % self.config.checkpoint_every == 0:
                self._save()
            bar.show(self.step, self.history)
        bar.close()
        if self.stopped == "interrupted":
            self._save()
        return self._finish()

    def _backward(self) -> Tensor:
        """Gradients of the step's minibatch; returns its objective, parts and gradient norm."""
        config, step = self.config, self.step
        trained = list(self.trained.values())
        parts = torch.zeros(len(PARTS) + 1, device=self.device, dtype=trained[0].dtype)
        rows = self._rows_of(step)
        self.optimizer.zero_grad()
        if rows is not None:
            if self.augment is not None:
                rows = self.augment(rows, torch.Generator().manual_seed(self._seed("augment", step)))
            generator = self._generator("noise", step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss: Loss = self.model.loss(rows, generator=generator)  # type: ignore[operator]
            if config.precision == "bfloat16":  # sums of many terms, which 8 bits of mantissa would spoil
                loss = Loss(*(part.float() for part in loss))
            self._check_shapes(loss, rows.num_rows)
            objective = loss.objective(config.kl_weight_at(step))
            objective.backward()
            parts = torch.stack([objective.detach(), *(getattr(loss, name).detach().mean() for name in PARTS)])
        parts = parallel.average_over_rows(trained, parts, 0 if rows is None else rows.num_rows)
        limit = config.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained.values(), limit)
        return torch.cat([parts, norm.detach().to(parts).reshape(1)])

    def _update(self) -> None:
        """One optimiser step, and the moving average after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        self.optimizer.step()
        self.step += 1
        if self.ema:
            # A short memory at first (Tensorflow's rule), or the average would hold on to the initial weights.
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    self.ema[name].lerp_(parameter, 1 - decay)

    def _rows_of(self, step: int) -> SeriesBatch | None:
        """A step's minibatch, or this process's share of it, if any. Chunks of an epoch differ by one row at most."""
        if self.chunks == 1 and not parallel.is_parallel():
            return self.train
        epoch, chunk = divmod(step, self.chunks)
        shuffle = torch.Generator().manual_seed(self._seed("order", epoch))
        order = torch.randperm(self.train.num_rows, generator=shuffle)
        index = parallel.share_of(order.tensor_split(self.chunks)[chunk])
        return self.train.rows(index).trim().to(device=self.device) if len(index) else None

    def _look(self) -> None:
        """Record the steps since the last record, and stop if one of them went wrong."""
        if not self.pending:
            return
        means = self._checked().mean(axis=0)
        self.pending.clear()
        self.scale = self.scale if self.scale is not None else 1 + _size(means)
        names = ("objective", *PARTS, "gradient_norm")
        now = {
            "kl_weight": self.config.kl_weight_at(self.step - 1),
            "learning_rate": self.config.learning_rate_at(self.step - 1),
        }
        self._record({"step": self.step, **dict(zip(names, means.tolist(), strict=True)), **now})

    def _checked(self) -> np.ndarray:
        """The numbers of the steps since the last record, (steps, parts + 2), if none of them went wrong."""
        numbers = torch.stack(self.pending).double().cpu().numpy()
        finite = np.isfinite(numbers).all(axis=1)
        if not finite.all():
            first = self.step - len(numbers) + int(np.argmin(finite)) + 1
            raise self._diverged(f"a loss or a gradient that is not finite, at step {first}")
        size = _size(numbers.mean(axis=0))
        if self.scale is not None and size > EXPLODED * self.scale:
            raise self._diverged(f"a loss of {size:.3g} nats per series by step {self.step}, from {self.scale:.3g}")
        return numbers

    def _diverged(self, what: str) -> DivergedError:
        load_weights(self.model, self.good, "the last good checkpoint")
        return DivergedError(
            f"training diverged: {what}; the weights of step {self.good_step} are back; try a lower "
            "learning_rate, a smaller clip_norm, kl_warmup_steps or precision float64"
        )

    def _validate(self) -> None:
        """Score the weights to be kept, and count how long they have not improved."""
        with self._kept_weights():
            value = parallel.from_first(self._score() if parallel.rank() == 0 else 0.0, self.device)
            self._record({"step": self.step, "validation": value if math.isfinite(value) else None})
            if self.step <= self.config.select_after * self.config.steps and self.step < self.config.steps:
                return
            if value < self.best_value:
                self.best, self.best_step, self.best_value, self.waited = self._weights(), self.step, value, 0
                return
        self.waited += 1
        if self.config.patience and self.waited >= self.config.patience:
            self.stopped = "patience"

    def _score(self) -> float:
        assert self.validation is not None
        self.model.eval()
        generator = self._generator("validation", 0)
        with torch.no_grad():
            if self.validate is not None:
                value = float(self.validate(self.model, self.validation))
            else:
                total, size = 0.0, self.config.batch_size or self.validation.num_rows
                for start in range(0, self.validation.num_rows, size):
                    rows = self.validation.rows(slice(start, start + size)).trim()
                    total -= float(self.model.loss(rows, generator=generator).elbo.sum())  # type: ignore[operator]
                value = total / self.validation.num_rows
        self.model.train()
        return value

    @contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """The model with its moving average in place of its weights, where there is one."""
        if not self.ema:
            yield
            return
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        self._put(self.ema)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def _seed(self, purpose: str, step: int) -> int:
        rank = parallel.rank() if purpose in ("noise", "augment") else 0
        words = [self.config.seed, ("order", "noise", "validation", "augment").index(purpose), step, rank]
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        """A generator for the model; torch's global one (forked in `fit`), for its dropout, gets the same seed."""
        seed = self._seed(purpose, step)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)

    def _check_shapes(self, loss: Loss, rows: int) -> None:
        if self.step == 0 or not self.history:
            for name in PARTS:
                shape = tuple(getattr(loss, name).shape)
                if shape != (rows,):
                    raise ValueError(
                        f"model: the loss's {name} has shape {shape}, and ({rows},), one number per series, is wanted"
                    )

    def _asked_to_stop(self, interrupted: threading.Event) -> bool:
        if parallel.is_parallel() and self.step % LOG_EVERY:
            return False  # the processes ask one another only now and then
        return parallel.any_of(interrupted.is_set(), self.device)

    def _record(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if self.log is not None:
            self.log.write(record)

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in UNCHECKED}
        return {"model": type(self.model).__name__, "data": self.data, "config": settings}

    def _save(self) -> None:
        """Write a checkpoint. Steps that wait for their record wait in it too: where a run was cut leaves no trace."""
        pending: dict[str, Tensor] = {}
        if self.pending:
            self._checked()
            pending["pending/steps"] = torch.stack(self.pending)
        self.good_step, self.good = self.step, self._weights()
        if self.checkpoint is None or parallel.rank() != 0:
            return
        names = list(self.trained)
        tensors = pending | {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": t for name, t in self.ema.items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{names[i]}/{key}": t for key, t in state.items()}
        card = {
            "step": self.step,
            **self._identity(),
            "best_step": self.best_step,
            "waited": self.waited,
            "best_value": self.best_value if self.best else None,
            "scale": self.scale,
            "stopped": None if self.stopped == "interrupted" else self.stopped,
            "seconds": self.seconds + time.monotonic() - self.started,
            "history": self.history,
        }
        self.checkpoint.write(card, tensors)

    def _restore(self) -> None:
        assert self.checkpoint is not None
        card, tensors = self.checkpoint.read()
        try:
            self._take(card, tensors)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.checkpoint.path} was altered, {error} is not as `fit` wrote it: give another folder, or "
                "resume=False to start again"
            ) from None

    def _take(self, card: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """The state that a checkpoint holds."""
        assert self.checkpoint is not None
        check_identity(self._identity(), card, self.checkpoint.path)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "best": {}, "optimizer": {}, "pending": {}}
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = tensor
        load_weights(self.model, groups["model"], self.checkpoint.path)
        self.ema = {name: groups["ema"][name].to(self.device) for name in self.ema}
        self.best = {name: tensor.to(self.device) for name, tensor in groups["best"].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for i, name in enumerate(self.trained):
            own = {
                key.rpartition("/")[2]: t for key, t in groups["optimizer"].items() if key.rpartition("/")[0] == name
            }
            if own:
                state[i] = own
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.pending = [numbers.to(self.device) for numbers in groups["pending"].get("steps", ())]
        self.step, self.history, self.scale = card["step"], card["history"], card["scale"]
        self.best_step, self.waited, self.stopped = card["best_step"], card["waited"], card["stopped"]
        self.best_value = math.inf if card["best_value"] is None else card["best_value"]
        self.seconds = card["seconds"]
        self.good_step, self.good = self.step, self._weights()

    def _finish(self) -> FitResult:
        assert self.stopped is not None
        if self.best:
            load_weights(self.model, self.best, "the best checkpoint")
        elif self.ema:
            self._put(self.ema)
        self.model.eval()
        found = bool(self.best)
        return FitResult(
            self.history,
            self.best_step if found else self.step,
            self.best_value if found else None,
            self.stopped,
            self.seconds + time.monotonic() - self.started,
        )


def _size(means: np.ndarray) -> float:
    """The largest of the objective and its parts."""
    return float(np.abs(means[: len(PARTS) + 1]).max())
