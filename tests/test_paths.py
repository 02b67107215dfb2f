from pathlib import Path

import pytest

from omnistream.paths import cache_folder, expand_path


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data$x")
    monkeypatch.delenv("ABSENT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("$DATA/y", "/data$x/y"),  # a value is not expanded again
        ("${DATA}y", "/data$xy"),
        ("~/$DATA", "/home/me//data$x"),
        ("a~b/~", "a~b/~"),
        ("price$", "price$"),
        (Path("$HOME") / "x", "/home/me/x"),
    ],
)
def test_expansion(written, expected):
    assert expand_path(written) == Path(expected)


@pytest.mark.parametrize("written", ["$ABSENT/x", "a/${ABSENT}"])
def test_a_variable_that_is_not_set_is_named(written):
    with pytest.raises(ValueError, match=r"ABSENT.*: the environment variable ABSENT is not set"):
        expand_path(written)


@pytest.mark.parametrize("name", ["$ABSENT", "~", "$HOME"])
def test_a_file_of_that_very_name_is_taken(name):
    Path(name).touch()
    assert expand_path(name) == Path(name)


def test_cache_folder(monkeypatch):
    monkeypatch.delenv("OMNISTREAM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("a") == Path("/home/me/.cache/omnistream/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder("a") == Path("/cache/omnistream/a")
    monkeypatch.setenv("OMNISTREAM_CACHE", "~/mine")
    assert cache_folder("a") == Path("/home/me/mine/a")
