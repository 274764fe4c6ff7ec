"""What goes wrong in latent SDEs, measured, with a verdict and a plain sentence on what to try.

Every function takes plain tensors of any model and returns a :class:`Diagnostic`. The thresholds are rules of thumb
for reading a report, not tests of significance; each is written where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from neurodyn.metrics.scores import calibration_curve
from neurodyn.style import percent

Verdict = Literal["good", "look", "bad"]

ACTIVE_SHARE = 0.01
"""A coordinate is active if at least this share of its posterior variance is differences between series."""


class Diagnostic(NamedTuple):
    """One reading.

    Attributes:
        name: of what was measured.
        value: the number that the verdict is about.
        unit: what the number counts.
        verdict: "good"; "look": worth a look; "bad": mend this before trusting the model.
        sentence: plain English: what it means and what to try.
        parts: by coordinate, span of time or level, for a bar chart; may be empty.
        part_unit: what the parts count.
        part_range: the least range that a chart of the parts shows, so that small ones look small.
        reference: where the parts would lie if all were well; None where there is no such place.
    """

    name: str
    value: float
    unit: str
    verdict: Verdict
    sentence: str
    parts: dict[str, float]
    part_unit: str
    part_range: tuple[float, float]
    reference: float | None


def posterior_collapse(kl: Tensor, path: Tensor, present: Tensor | None = None) -> Diagnostic:
    """Does the posterior depend on the data? The share of latent coordinates that do.

    By the law of total variance, a coordinate's variance at a visit is the variance between series of its posterior
    mean, plus the mean of its posterior variance. The first part's share is 0 in a coordinate that ignores the data
    (a unit "inactive" in the sense of Burda, Grosse and Salakhutdinov 2016) and near 1 where the data pin it down. The
    variance between series is corrected for the noise that a mean of S samples carries.

    Good: more than half of the coordinates are active and the rate (mean KL) is at least 0.1 nats. Bad: none is
    active, or a rate below 0.01 nats per series.

    Args:
        kl: (B,), initial plus path KL, in nats per series (:class:`neurodyn.training.Loss`).
        path: (S, B, T, d), posterior samples at the visits; S >= 2, B >= 2.
        present: (B, T) bool, False at padding.

    Returns:
        Value: the share of active coordinates. Parts: each coordinate's share of variance between series.
    """
    _check(path, "path", 4)
    samples, rows, visits, size = path.shape
    if samples < 2 or rows < 2:
        raise ValueError(f"path: want at least 2 samples of at least 2 rows, got {samples} of {rows}")
    _check_shape(kl, "kl", (rows,))
    weight = _weight(present, (rows, visits), path)
    mean, within = path.mean(0), path.var(0)
    # Between series at the same visit number, pooled over visits that at least two rows have.
    count = weight.sum(0)
    used = (count > 1).to(path.dtype)
    centre = (weight * mean).sum(0) / count.clamp(min=1)
    between = (weight * (mean - centre).square()).sum(0) / (count - 1).clamp(min=1)
    noise = (weight * within).sum(0) / count.clamp(min=1)
    pooled = used * count
    signal = ((between - noise / samples) * pooled).sum(0).clamp(min=0)
    share = signal / (signal + (noise * pooled).sum(0)).clamp(min=torch.finfo(path.dtype).tiny)
    active, rate = float((share >= ACTIVE_SHARE).double().mean()), float(kl.double().mean())
    parts = {f"z{k + 1}": float(s) for k, s in enumerate(share)}
    says = f"{round(active * size)} of {size} latent coordinates carry information about the series ({rate:.3g} nats)."
    if active == 0 or rate < 0.01:
        verdict: Verdict = "bad"
        says += (
            " The posterior ignores the data: warm the KL weight up (kl_warmup_steps), start with small observation "
            "noise, or check that the encoder sees the values."
        )
    elif active <= 0.5 or rate < 0.1:
        verdict = "look"
        says += " The others follow the prior: a smaller latent_size would do, or a slower KL warm-up might use them."
    else:
        verdict = "good"
    return Diagnostic(
        "posterior collapse",
        active,
        "share of active coordinates",
        verdict,
        says,
        parts,
        "share of variance between series",
        (0.0, 1.0),
        None,
    )


def reconstruction_gain(
    values: Tensor, mask: Tensor, reconstruction: Tensor, prior_mean: Tensor, variables: Sequence[str] | None = None
) -> Diagnostic:
    """How much of the data the posterior explains beyond the prior's mean: 1 - SSE(reconstruction) / SSE(prior).

    Good: at least 0.3. Bad: below 0.05: the latent carries nothing that the decoder uses.

    Args:
        values, mask: (B, T, D).
        reconstruction: (B, T, D), the likelihood's mean under the posterior.
        prior_mean: (B, T, D), the likelihood's mean under the prior, no data seen.
        variables: D names for the parts.

    Returns:
        Value: the gain over all observed entries. Parts: per variable (those observed).
    """
    _check(values, "values", 3)
    for name, table in (("mask", mask), ("reconstruction", reconstruction), ("prior_mean", prior_mean)):
        _check_shape(table, name, tuple(values.shape))
    if not bool(mask.any()):
        raise ValueError("mask: nothing observed, at least one entry wanted")
    names = tuple(variables) if variables is not None else tuple(f"y{k + 1}" for k in range(values.shape[-1]))
    left = torch.where(mask, values - reconstruction, 0.0).double().square().sum((0, 1))
    start = torch.where(mask, values - prior_mean, 0.0).double().square().sum((0, 1))
    gain = float(1 - left.sum() / start.sum())
    parts = {n: float(1 - a / b) for n, a, b in zip(names, left, start, strict=True) if b > 0}
    says = f"The posterior explains {percent(gain)} of the squared error that the prior's mean leaves."
    verdict: Verdict = "good" if gain >= 0.3 else "look" if gain >= 0.05 else "bad"
    if verdict != "good":
        says += (
            " Little of the data passes through the latent: give the observation noise a smaller start, warm the KL "
            "weight up more slowly, or train longer."
        )
    return Diagnostic(
        "reconstruction gain",
        gain,
        "explained share",
        verdict,
        says,
        parts,
        "explained share of the squared error",
        (0.0, 1.0),
        0.0,
    )


def diffusion_collapse(path: Tensor, times: Tensor, diffusion: Tensor) -> Diagnostic:
    """Are posterior paths as rough as the prior says, and does that roughness matter? (torchsde issue #113)

    Two readings. *Roughness*: the quadratic variation of the paths over the prior's expected one, the integral of
    g^2 dt. It is 1 if the posterior keeps the prior's diffusion, as every posterior with a finite path KL does, and
    falls to 0 when paths turn smooth. The quadratic variation is estimated from changes of slope,
    ``(dz_{k+1}/dt_{k+1} - dz_k/dt_k)^2 / (1/dt_{k+1} + 1/dt_k)``, whose expectation for Brownian motion is g^2 and in
    which a drift cancels: squared increments would count the drift as roughness on a coarse grid. *Noise share*: the
    integral of g^2 dt, relative to it plus the paths' own variance. Near 0 the SDE has become an ODE, and forecasts too
    narrow.

    Good: roughness in [0.7, 1.4] and a noise share of at least 0.01 in every coordinate. Bad: roughness outside
    [0.3, 3] in any, or a noise share below 0.001 in all.

    Args:
        path: (S, B, N, d), posterior paths on a grid fine enough that the drift moves little in a step; N >= 3.
        times: (B, N), nondecreasing; steps of length zero are padding.
        diffusion: (S, B, N, d) or (S, B, N, d, m), the *prior's* g along the paths (its last entry is not used).

    Returns:
        Value: the roughness furthest from 1 (in its logarithm) of all coordinates. Parts: each of them.
    """
    _check(path, "path", 4)
    samples, rows, points, size = path.shape
    if points < 3:
        raise ValueError(f"path: want at least 3 times to see roughness, got {points}")
    _check_shape(times, "times", (rows, points))
    path = path.double()  # slopes are differences of differences over short times
    variance = _squared_diffusion(diffusion, path)
    dt = times.double().diff(dim=1)[..., None]
    real = dt > 0
    rate = torch.where(real, 1 / torch.where(real, dt, 1.0), 0.0)
    slope = path.diff(dim=2) * rate
    both = real[:, 1:] & real[:, :-1]
    if not bool(both.any()):
        raise ValueError("times: want a row with at least 3 different times")
    rates = torch.where(both, rate[:, 1:] + rate[:, :-1], 1.0)
    weight = torch.where(both, (dt[:, 1:] + dt[:, :-1]) / 2, 0.0)
    found = (slope.diff(dim=2).square() / rates * weight).sum((0, 1, 2))
    expected = (variance[:, :, :-2] * rate[:, :-1] + variance[:, :, 1:-1] * rate[:, 1:]) / rates
    wanted = (expected * weight).sum((0, 1, 2))
    tiny = torch.finfo(path.dtype).tiny
    ratio = found / wanted.clamp(min=tiny)
    roughness = float(ratio[ratio.clamp(min=tiny).log().abs().argmax()])
    integral = (variance[:, :, :-1] * dt).sum(2).mean((0, 1))
    # Padding repeats the last state or anything else: points whose step before them is empty do not count.
    seen = torch.cat([torch.ones_like(real[:, :1]), real], 1).to(path.dtype)
    count = seen.sum() * samples
    centre = (path * seen).sum((0, 1, 2)) / count
    spread = ((path - centre).square() * seen).sum((0, 1, 2)) / count
    noise = integral / (integral + spread).clamp(min=tiny)
    worst, best = float(noise.min()), float(noise.max())
    quiet = [f"z{k + 1}" for k in range(size) if float(noise[k]) < 0.01]
    says = (
        f"Posterior paths have {float(ratio.min()):.2g} to {float(ratio.max()):.2g} times the roughness of the prior, "
        f"whose noise makes {percent(best, 1)} of the variation of the most random coordinate."
    )
    bad = not 0.3 <= roughness <= 3 or best < 0.001
    look = not 0.7 <= roughness <= 1.4 or worst < 0.01
    if best < 0.001:
        says += (
            " The diffusion has collapsed and the SDE is nearly an ODE: set a floor under the diffusion, raise the KL "
            "weight, or fix the observation noise for the first steps."
        )
    elif roughness < 0.7:
        says += (
            " The posterior is smoother than the prior allows: use a finer time step, or raise the weight of the path "
            "KL so that the posterior shares the prior's diffusion."
        )
    elif roughness > 1.4:
        says += " The posterior is rougher than the prior: use a finer time step, or clip the posterior's drift."
    elif quiet:
        says += f" {', '.join(quiet)} hardly moves at random: fine for a smooth quantity, else set a diffusion floor."
    verdict: Verdict = "bad" if bad else "look" if look else "good"
    parts = {f"z{k + 1}": float(r) for k, r in enumerate(ratio)}
    return Diagnostic(
        "diffusion collapse",
        roughness,
        "roughness over the prior's",
        verdict,
        says,
        parts,
        "roughness over the prior's",
        (0.0, 1.5),
        1.0,
    )


def drift_gap(posterior_drift: Tensor, prior_drift: Tensor, diffusion: Tensor, times: Tensor) -> Diagnostic:
    """How hard the posterior must steer against the prior, whether always the same way, and when.

    The control is u = (posterior drift - prior drift) / g; the path KL is the integral of |u|^2 / 2. For a prior that
    fits, the posteriors of all series mix back to the prior, so u averages to zero over series and samples: what is
    left of its mean is a *systematic* error of the prior's drift, which forecasts, rolled out by the prior alone, will
    make. Its share of the mean squared u is estimated in ten spans of each row's time without bias (from products of
    different rows), so that two rows or many give the same answer on average.

    Good: a systematic share below 0.2 and less than half of the path KL in one tenth of the time (not looked at on
    grids of fewer than 20 steps). Bad: a share above 0.5. With one row the share cannot be told and is left out.

    Args:
        posterior_drift, prior_drift: (S, B, N, d) along posterior paths; entry k belongs to the step after times[k].
        diffusion: (S, B, N, d), or (S, B, N, d, m), whose pseudo-inverse then divides.
        times: (B, N), nondecreasing; steps of length zero are padding, and the last entry of the drifts is not used.

    Returns:
        Value: the mean of |u|, per square root of the unit of time. Parts: the share of the path KL by tenths of each
        row's time.
    """
    _check(posterior_drift, "posterior_drift", 4)
    samples, rows, points, size = posterior_drift.shape
    _check_shape(prior_drift, "prior_drift", tuple(posterior_drift.shape))
    _check_shape(times, "times", (rows, points))
    gap = posterior_drift - prior_drift
    if diffusion.dim() == 5:
        _check_shape(diffusion, "diffusion", (samples, rows, points, size, diffusion.shape[-1]))
        control = (torch.linalg.pinv(diffusion) @ gap[..., None])[..., 0]
    else:
        _check_shape(diffusion, "diffusion", tuple(posterior_drift.shape))
        if bool((diffusion == 0).any()):
            raise ValueError("diffusion: want no zeros, or the path KL is infinite")
        control = gap / diffusion
    control = control[:, :, :-1]
    clock = times.double()
    dt = clock.diff(dim=1)
    span = clock[:, -1:] - clock[:, :1]
    if not bool((span > 0).all()):
        raise ValueError("times: want at least two different times in every row")
    middle = ((clock[:, 1:] + clock[:, :-1]) / 2 - clock[:, :1]) / span
    tenth = torch.nn.functional.one_hot((10 * middle).long().clamp(max=9), 10).double() * (dt / span)[..., None]
    u = control.double()
    size_of_u = float((u.norm(dim=-1).mean(0) * (dt / span)).sum(1).mean())
    energy = torch.einsum("bn,bnk,b->k", u.square().sum(-1).mean(0), tenth, span[:, 0])
    total = float(energy.sum()) / rows / 2
    share = energy / energy.sum().clamp(min=torch.finfo(torch.float64).tiny)
    parts = {f"{10 * k}-{10 * (k + 1)} %": float(s) for k, s in enumerate(share)}
    says = f"The posterior steers by {size_of_u:.2g} noise units, {total:.3g} nats of path KL per series"
    systematic = _systematic_share(u, tenth) if rows > 1 else math.nan
    if rows > 1:
        says += f", {percent(max(systematic, 0.0))} of it the same way in all series"
    says += "."
    peak = float(share.max()) if points > 20 else 0.0
    if systematic > 0.2:
        says += (
            " The prior's drift is off in a systematic way, and forecasts will be: train longer, give the prior a "
            "larger network or a linear part, or lower the learning rate late."
        )
    elif peak > 0.5:
        worst = list(parts)[int(share.argmax())]
        says += f" {percent(peak)} of the path KL falls into {worst} of the time: look there, or at the initial law."
    verdict: Verdict = "bad" if systematic > 0.5 else "look" if systematic > 0.2 or peak > 0.5 else "good"
    return Diagnostic(
        "drift gap",
        size_of_u,
        "mean |control|, per sqrt(time)",
        verdict,
        says,
        parts,
        "share of the path KL",
        (0.0, 0.3),
        0.1,
    )


def forecast_calibration(pit: Tensor, level: float = 0.9) -> Diagnostic:
    """Do intervals of the forecast hold the truth as often as they say?

    Good: the coverage of the interval of probability ``level`` is within 0.03 of it (or within two binomial standard
    errors, if that is more), and the median errs to neither side by more than 0.05 of probability. Bad: off by more
    than 0.08 (or three standard errors).

    Args:
        pit: PIT values of any shape, NaN where there is no truth (:func:`neurodyn.metrics.scores.pit`).
        level: probability of the interval.

    Returns:
        Value: the coverage. Parts: coverage minus level for levels from 10 % to 90 %.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: want a probability inside (0, 1), got {level}")
    known = pit[~pit.isnan()].double()
    if known.numel() == 0:
        raise ValueError("pit: no value that is not NaN")
    levels = torch.tensor([*(k / 10 for k in range(1, 10)), level], dtype=torch.float64)
    curve = calibration_curve(known, levels.to(known.device))
    coverage, error = float(curve[-1]), math.sqrt(level * (1 - level) / known.numel())
    below = float((known < 0.5).double().mean())
    off, tilt = abs(coverage - level), abs(below - 0.5)
    tilt_error = 0.5 / math.sqrt(known.numel())
    says = f"{percent(coverage)} of {known.numel()} later values lie inside the {percent(level)} interval."
    if off > max(0.03, 2 * error):
        says += (
            " The intervals are too narrow: forecasts claim to know too much; check the diffusion, use more rows, or "
            "stop training earlier."
            if coverage < level
            else " The intervals are too wide: train longer, or check that the observation noise isn't fixed too large."
        )
    if tilt > max(0.05, 2 * tilt_error):
        side = "high" if below > 0.5 else "low"
        says += f" Forecasts are too {side}: {percent(below)} of the values fall below the median."
    bad = off > max(0.08, 3 * error) or tilt > max(0.15, 3 * tilt_error)
    look = off > max(0.03, 2 * error) or tilt > max(0.05, 2 * tilt_error)
    verdict: Verdict = "bad" if bad else "look" if look else "good"
    parts = {f"{100 * a:g} %": float(c) - float(a) for a, c in zip(levels[:9], curve, strict=False)}
    return Diagnostic(
        "forecast calibration",
        coverage,
        f"coverage of the {percent(level)} interval",
        verdict,
        says,
        parts,
        "coverage minus level",
        (-0.1, 0.1),
        0.0,
    )


def _systematic_share(u: Tensor, tenth: Tensor) -> float:
    """Share of the mean squared control that is common to all rows at the same tenth of their time."""
    # Row means of u in each tenth, (B, 10, m). U-statistic: products of two different rows have the expectation
    # |E u|^2, without the sampling noise that squares of one mean contain.
    weight = tenth.sum(1)
    by_tenth = torch.einsum("bnm,bnk->bkm", u.mean(0), tenth) / weight.clamp(min=1e-300)[..., None]
    there = (weight > 0).double()[..., None]
    count = there.sum(0)
    total, squares = (by_tenth * there).sum(0), (by_tenth.square() * there).sum(0)
    pairs = (total.square() - squares) / (count * (count - 1)).clamp(min=1)
    common = pairs.sum(-1)[count[:, 0] > 1].mean()
    power = (torch.einsum("bn,bnk->bk", u.square().sum(-1).mean(0), tenth).sum(1)).mean()
    return float(common / power) if float(power) > 0 else 0.0


def _squared_diffusion(diffusion: Tensor, path: Tensor) -> Tensor:
    """g^2, or the diagonal of g g^T: (S, B, N, d)."""
    if diffusion.dim() == 5:
        _check_shape(diffusion, "diffusion", (*path.shape, diffusion.shape[-1]))
        return diffusion.double().square().sum(-1)
    _check_shape(diffusion, "diffusion", tuple(path.shape))
    return diffusion.double().square()


def _weight(present: Tensor | None, shape: tuple[int, int], like: Tensor) -> Tensor:
    """(B, T, 1): 1 where present."""
    if present is None:
        return torch.ones(*shape, 1, dtype=like.dtype, device=like.device)
    _check_shape(present, "present", shape)
    return present[..., None].to(like.dtype)


def _check(tensor: Tensor, name: str, dims: int) -> None:
    if tensor.dim() != dims:
        raise ValueError(f"{name}: want {dims} axes, got shape {tuple(tensor.shape)}")


def _check_shape(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: want shape {shape}, got {tuple(tensor.shape)}")
