"""Whether a checkpoint belongs to the run that wants to go on from it: the same model, settings and rows."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurodyn.series import SeriesBatch


def check_identity(here: Mapping[str, Any], there: Mapping[str, Any], where: Path) -> None:
    """Compare what a run is ("model", "config" and "data") with what a checkpoint says that it was made by.

    Raises:
        ValueError: another model, configuration or data; names what differs, and the checkpoint.
    """
    ending = "give another folder, or resume=False to start again"
    if there["model"] != here["model"]:
        raise ValueError(
            f"{where} is the checkpoint of a {there['model']}, and a {here['model']} is to be trained: {ending}"
        )
    keys = sorted(here["config"].keys() | there["config"].keys())
    differ = [
        f"{k} {there['config'].get(k)} there and {here['config'].get(k)} here"
        for k in keys
        if there["config"].get(k) != here["config"].get(k)
    ]
    if differ:
        raise ValueError(f"{where} is the checkpoint of another configuration ({', '.join(differ)}): {ending}")
    if there["data"] != here["data"]:
        raise ValueError(
            f"{where} is the checkpoint of a run on other data ({there['data']} there and "
            f"{here['data']} here): {ending}"
        )


def digest(batch: SeriesBatch) -> str:
    """Size and checksum of the rows, to notice a checkpoint that was trained on others."""
    sha = hashlib.sha256()
    for tensor in (batch.times, batch.values, batch.mask, batch.covariates, batch.static, batch.labels):
        if tensor is not None:
            sha.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return f"{batch.num_rows} rows of {batch.num_variables} variables, {sha.hexdigest()[:12]}"
