"""`recordings`: four small recordings of populations, cut into trials, with behaviour where there is one.

name               trials (about)  units  bins        behaviour                  aligned to
hippocampus        120             28     40 x 50 ms  position, two columns      windows of 2 s in which the rat ran
reach_spikes       112             61     50 x 20 ms  none; labels: two reaches  begin of the trial
rat_motor_cortex   1266            30     50 x 40 ms  none                       first lever tap at 0.5 s
miller_m1          95              151    6 x 200 ms  hand velocity, x and y     change of target

Sources and licences:
    hippocampus: nelpy/example-data, linear-track (rat CA1; Kemere lab); MIT.
    reach_spikes: BenjoCowley/DataHigh, ex2_rawspiketrains.mat (monkey motor cortex, delayed reaches); code GPL-2, for
        the data none is stated.
    rat_motor_cortex: ahwillia/affinewarp, rat_motor_ctx.npz (Olveczky lab; Williams et al. 2020, Neuron 105); the code
        is MIT, for the data none is stated.
    miller_m1: KordingLab/DAD, mihi_demo.mat (monkey M1, centre-out reaches; Miller lab; Dyer et al. 2017, Nature
        Biomedical Engineering 1), its second session; none is stated.
Where none is stated, `load` says so.

Protocol: five folds of trials, interleaved in time; one fold is tested, a sixth of the other trials validates. A fifth
of the units, the same ones always, are held out. The last fifth of the bins is to be predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from neurodyn.datasets.sources import fetch, tell_no_licence, unreadable
from neurodyn.datasets.spikes import Window, bin_spikes, sample_behaviour, spike_batch
from neurodyn.datasets.splits import Splits
from neurodyn.spelling import nearest

Array = NDArray[Any]
FOLDS = 5


class Source(NamedTuple):
    """Where a file is, and how its trials are cut."""

    file: str
    url: str
    sha256: str
    licence: str
    citation: str
    bin_width: float
    cut: Callable[[Any], tuple[Array, Array | None, Array | None]]
    behaviour: tuple[str, ...]


def load(recording: str = "hippocampus", fold: int = 0) -> Splits:
    """Training, validation and test trials; covariates are behaviour, labels conditions, where there are any.

    `info` holds `bin_width` in s, `held_out` (positions of units), `num_observed` (bins before those to predict) and
    `behaviour` (names of covariates).

    Raises:
        ValueError: an unknown recording or fold; an altered file. FileNotFoundError: no file and no network.
    """
    if recording not in SOURCES:
        known = tuple(SOURCES)
        raise ValueError(f"recording: {recording!r} given{nearest(recording, known)}, one of {list(known)} wanted")
    if fold not in range(FOLDS):
        raise ValueError(f"fold: {fold} given, 0 to {FOLDS - 1} wanted")
    source = SOURCES[recording]
    if source.licence == "none stated":
        tell_no_licence(f"recordings {recording}", source.url.split("/")[3] + "/" + source.url.split("/")[4])
    path = fetch(recording, source.file, source.url, source.sha256)
    try:
        content: Any = np.load(path) if path.suffix == ".npz" else scipy.io.loadmat(path)
        counts, behaviour, labels = source.cut(content)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise unreadable(path, error) from error
    spoke = counts.sum((0, 1)) > 0
    names = [f"unit{k}" for k in np.flatnonzero(spoke)]
    batch = spike_batch(
        counts[..., spoke],
        source.bin_width,
        behaviour=behaviour,
        variables=names,
        labels=None if labels is None else torch.as_tensor(labels),
        ids=[f"trial-{k}" for k in range(len(counts))],
    )
    place = np.arange(len(counts))
    test = place % FOLDS == fold
    others = np.flatnonzero(~test)
    validation = others[np.random.default_rng(fold).permutation(len(others))[: len(others) // 6]]
    train = np.setdiff1d(others, validation)
    parts = [batch.rows(torch.as_tensor(index)) for index in (train, np.sort(validation), np.flatnonzero(test))]
    units, bins = batch.num_variables, batch.num_times
    info: dict[str, Any] = {
        "name": recording,
        "source": source.url,
        "licence": source.licence,
        "citation": source.citation,
        "time_unit": "s",
        "log": (),
        "static_names": (),
        "protocols": {"forward": {"count": bins - bins // 5}},
        "bin_width": source.bin_width,
        "held_out": tuple(sorted(np.random.default_rng(0).permutation(units)[: units // 5].tolist())),
        "num_observed": bins - max(1, bins // 5),
        "behaviour": source.behaviour,
    }
    return Splits(parts[0], parts[1], parts[2], info)


def _hippocampus(content: Any) -> tuple[Array, Array | None, Array | None]:
    t, place = content["pos_time"].astype(float), content["pos_xy"].astype(float)
    starts = np.arange(t[0], t[-1] - 2.0, 2.0)
    edge = np.searchsorted(t, np.append(starts, starts[-1] + 2.0))
    ran = np.array([np.ptp(place[a:b, 0]) > 60 if b > a else False for a, b in zip(edge[:-1], edge[1:], strict=True)])
    window = Window(0.0, 2.0, 0.05)
    counts = bin_spikes(content["spike_time"], content["spike_unit"].astype(int), starts[ran], window, num_units=31)
    return counts, sample_behaviour(t, place, starts[ran], window), None


def _reaches(content: Any) -> tuple[Array, Array | None, Array | None]:
    trials = content["D"][0]
    fine = np.stack([trial["data"][:, :1000] for trial in trials]).astype(float)
    counts = fine.reshape(len(trials), fine.shape[1], 50, 20).sum(-1).swapaxes(1, 2)
    kinds = [str(trial["condition"][0]) for trial in trials]
    return counts, None, np.unique(kinds, return_inverse=True)[1]


def _rat(content: Any) -> tuple[Array, Array | None, Array | None]:
    trial = content["trial_ids"].astype(int)
    # one long session in which trial k begins at 2 k s
    times = content["spiketimes"] / 1000 + 2.0 * trial
    starts = 2.0 * np.arange(len(content["tap1"]))
    window = Window(0.0, 2.0, 0.04)
    return bin_spikes(times, content["neuron_ids"].astype(int), starts, window, num_units=30), None, None


def _miller(content: Any) -> tuple[Array, Array | None, Array | None]:
    rates, moves, target = content["Yte"], content["Xte"], content["Tte"][:, 0]
    counts = np.round(rates * 0.2)  # the file has spikes per s in bins of 200 ms
    starts = np.concatenate([[0], np.flatnonzero(np.diff(target)) + 1])
    index = starts[:, None] + np.arange(6)
    index = index[index[:, -1] < len(target)]
    return counts[index], moves[index], np.unique(target[index[:, 0]], return_inverse=True)[1]


_RAW = "https://raw.githubusercontent.com/"
SOURCES: dict[str, Source] = {
    "hippocampus": Source(
        "linear-track.npz",
        _RAW + "nelpy/example-data/099548c/linear-track.npz",
        "4aa6531f60c38eb91002e0d3abd3a1d249c1b8c7dad5521c32389f892c4e25b4",
        "MIT (nelpy/example-data)",
        "Kemere lab, nelpy example data",
        0.05,
        _hippocampus,
        ("x (pixels)", "y (pixels)"),
    ),
    "reach_spikes": Source(
        "ex2_rawspiketrains.mat",
        _RAW + "BenjoCowley/DataHigh/887d83b/data/ex2_rawspiketrains.mat",
        "baa0307da896b4fbb488c59c54a6abbf7b0ea32e0dfaf58dbef47abdaa1de309",
        "none stated",
        "Cowley et al., DataHigh, Journal of Neural Engineering 2013",
        0.02,
        _reaches,
        (),
    ),
    "rat_motor_cortex": Source(
        "rat_motor_ctx.npz",
        _RAW + "ahwillia/affinewarp/6042b2a/data/rat_motor_ctx.npz",
        "4cb0ff3acb4c883a398a89cc53eeae451de33d94f4a430388720498ec23e8572",
        "none stated",
        "Williams et al., Neuron 2020",
        0.04,
        _rat,
        (),
    ),
    "miller_m1": Source(
        "mihi_demo.mat",
        _RAW + "KordingLab/DAD/2f20597/data/mihi_demo.mat",
        "907bc78863d9488ef352eaad8af8296bc28484d5a49591309b1c8576c6009f8c",
        "none stated",
        "Dyer et al., Nature Biomedical Engineering 2017",
        0.2,
        _miller,
        ("x velocity", "y velocity"),
    ),
}
