"""Where files of data sets come from: the user's folder, the cache, the official address; and whether they are whole.

`NEURODYN_DATA` names a folder that is searched first, as `<NEURODYN_DATA>/<folder>/<file>`. Then comes the cache
(`cache_folder()`), then the download. Nothing here runs code that a file contains.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

_told: set[str] = set()


class NoLicenceStated(UserWarning):
    """The source of a data set states no licence; whoever uses it should ask the owners."""


def tell_no_licence(name: str, owner: str) -> None:
    """Tell the user, once in a process, that the source states no licence."""
    if name not in _told:
        _told.add(name)
        warnings.warn(
            f"{name}: its source ({owner}) states no licence; ask the owners before you pass it on or build on it",
            NoLicenceStated,
            stacklevel=3,
        )


def cache_folder() -> Path:
    """The folder of downloads and of files made from them: pooch's folder for this user."""
    import pooch

    return Path(pooch.os_cache("neurodyn"))


def local(folder: str, file: str) -> Path | None:
    """The file in the user's folder or in the cache, if it is there."""
    places = [cache_folder() / folder / file]
    if os.environ.get("NEURODYN_DATA"):
        places.insert(0, Path(os.environ["NEURODYN_DATA"]) / folder / file)
    return next((place for place in places if place.is_file()), None)


def fetch(folder: str, file: str, url: str, sha256: str | None) -> Path:
    """The path of a file that is there and, if its checksum is known, whole; downloaded if it must be.

    Raises:
        ValueError: a local or downloaded file with another checksum: it says what to delete.
        FileNotFoundError: not there and not to be had: it says where to get the file and where to put it.
    """
    found = local(folder, file)
    if found is not None:
        check(found, sha256)
        return found
    import pooch

    place = cache_folder() / folder
    try:
        pooch.retrieve(url, known_hash=None, fname=file, path=place)
    except Exception as error:  # the network fails in too many ways to name: requests', urllib3's, the system's
        reason = " ".join(str(error).split())[:120]
        raise FileNotFoundError(
            f"{file}: not here and {url} cannot be reached ({type(error).__name__}: {reason}); download it elsewhere "
            f"and put it at {place / file} or at {folder}/{file} in a folder that NEURODYN_DATA names"
        ) from error
    check(place / file, sha256)
    return place / file


def check(path: Path, sha256: str | None) -> None:
    """ValueError if the file is not the one that the checksum belongs to."""
    if sha256 is None:
        return
    found = digest(path)
    if found != sha256:
        raise ValueError(
            f"{path}: altered or cut short (sha256 {found[:12]}..., {sha256[:12]}... wanted); delete it and load again"
        )


def digest(path: Path) -> str:
    """The file's sha256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable(path: Path, error: Exception, remedy: str = "delete it and load again") -> ValueError:
    """The error to raise for a file whose content cannot be read; for a user's own file with another `remedy`."""
    reason = " ".join(str(error).split())[:120]
    return ValueError(f"{path}: altered or cut short ({type(error).__name__}: {reason}); {remedy}")
