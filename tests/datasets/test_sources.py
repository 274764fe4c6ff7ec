"""Files of data sets: where they are looked for, and what is said when they are missing, altered or cut short."""

from __future__ import annotations

import warnings

import pooch
import pytest

from neurodyn.datasets import sources


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty cache, an empty user's folder, no network."""
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("NEURODYN_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr(pooch, "retrieve", offline)
    (tmp_path / "mine" / "set").mkdir(parents=True)
    (tmp_path / "cache" / "set").mkdir(parents=True)
    return tmp_path


def offline(*_, **__):
    raise ConnectionError("Name or service\nnot known")


URL = "https://example.org/a.csv"


def test_the_users_folder_comes_before_the_cache_and_the_cache_before_the_network(places, monkeypatch) -> None:
    mine, cached = places / "mine" / "set" / "a.csv", places / "cache" / "set" / "a.csv"
    mine.write_text("mine")
    cached.write_text("cached")
    assert sources.fetch("set", "a.csv", URL, None) == mine
    mine.unlink()
    assert sources.fetch("set", "a.csv", URL, None) == cached
    monkeypatch.delenv("NEURODYN_DATA")
    assert sources.local("set", "a.csv") == cached
    cached.unlink()
    assert sources.local("set", "a.csv") is None

    def download(url, known_hash, fname, path):
        assert url == URL
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_text("downloaded")

    monkeypatch.setattr(pooch, "retrieve", download)
    assert sources.fetch("set", "a.csv", URL, sources.digest(download_to(places))).read_text() == "downloaded"


def download_to(folder):
    path = folder / "reference"
    path.write_text("downloaded")
    return path


def test_offline_says_where_to_get_the_file_and_where_to_put_it(places) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        sources.fetch("set", "a.csv", URL, None)
    message = str(caught.value)
    assert "\n" not in message
    for word in (URL, "cannot be reached", str(places / "cache" / "set" / "a.csv"), "set/a.csv", "NEURODYN_DATA"):
        assert word in message


@pytest.mark.parametrize("content", [b"whole file, alterad", b"whole fil", b""])
def test_an_altered_or_cut_file_says_what_to_delete(places, content) -> None:
    path = places / "mine" / "set" / "a.csv"
    path.write_bytes(b"whole file, altered")
    checksum = sources.digest(path)
    assert sources.fetch("set", "a.csv", URL, checksum) == path
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        sources.fetch("set", "a.csv", URL, checksum)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{path}: altered or cut short" in message
    assert "delete it" in message


def test_a_download_with_another_checksum_is_refused(places, monkeypatch) -> None:
    def download(url, known_hash, fname, path):
        (path / fname).write_text("not what was promised")

    monkeypatch.setattr(pooch, "retrieve", download)
    with pytest.raises(ValueError, match="altered or cut short"):
        sources.fetch("set", "a.csv", URL, "0" * 64)


def test_a_missing_licence_is_told_once() -> None:
    with pytest.warns(sources.NoLicenceStated, match="states no licence"):
        sources.tell_no_licence("a set told once", "someone")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sources.tell_no_licence("a set told once", "someone")
