"""Names with an argument behind a colon, and files that lead to an entry by their ending."""

from __future__ import annotations

import pytest

import kdiff_core as kd
from kdiff_core.entry import SUFFIXES
from kdiff_core.errors import ParameterError, UnknownNameError


def made(path, scale=1):
    """What the entries make."""
    return ("made", path, scale)


class Plugin:
    """A plugin of names with and without an argument."""

    @kd.hookimpl
    def kdiff_denoisers(self):
        return [
            kd.Entry("Box", made, aliases=("old_box",), argument="path"),
            kd.Entry("Box", lambda path: ("two", path), argument="path", version=2),
            kd.Entry("plain", made, defaults={"path": "p"}),
            kd.Entry("host:thing", made, defaults={"path": "h"}),
            kd.Entry("trained", lambda file: ("file", file), argument="file"),
        ]


@pytest.fixture
def registry():
    found = kd.Registry(load=False)
    found.register(Plugin(), "shop")
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("box:a/B c.x", ("two", "a/B c.x")),
        ("old_box:org/Name", ("two", "org/Name")),
        ("shop:box:org/name", ("two", "org/name")),
        ("box:x:y", ("two", "x:y")),
        ("box:x@1", ("made", "x", 1)),
        ("shop:box:x.safetensors@2", ("two", "x.safetensors")),
        ("host:thing", ("made", "h", 1)),
        ("my.SafeTensors", ("file", "my.SafeTensors")),
        ("trained:my.safetensors", ("file", "my.safetensors")),
    ],
)
def test_what_stands_behind_the_colon(registry, name, expected):
    """It is the option that the entry says, as it is written, whatever the name's own form."""
    assert registry.get("denoiser", name) == expected
    entry = registry.entry("denoiser", name)
    assert registry.get("denoiser", f"{entry.id}@{entry.version}") == expected


def test_a_path_leads_there_from_any_folder(registry, tmp_path, monkeypatch):
    """A path that exists becomes absolute, so that a manifest's name leads to it."""
    (tmp_path / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    entry = registry.entry("denoiser", "model.safetensors")
    assert entry.id == f"shop:trained:{tmp_path / 'model.safetensors'}"
    monkeypatch.chdir("/")
    assert registry.get("denoiser", entry.id) == ("file", str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("box", {}, "needs its path behind a colon: Box:PATH"),
        ("box:x", {"path": "y"}, "path='y' is given by the name already"),
        ("box:", {}, "no denoiser 'box:'"),
        ("plain:x", {}, "no denoiser 'plain:x'"),
        ("nobody:x", {}, "no denoiser 'nobody:x'"),
        ("box:x@3", {}, "no version 3"),
    ],
)
def test_refusals(registry, name, options, says):
    """An argument that is missing, twice there or nobody's is refused."""
    with pytest.raises((ParameterError, UnknownNameError), match=says):
        registry.get("denoiser", name, **options)


def test_other_options_go_beside_it(registry):
    """Options are given beside the argument, and the option may be given by its name instead."""
    assert registry.get("denoiser", "box:x@1", scale=3) == ("made", "x", 3)
    assert registry.get("denoiser", "box@1", path="y") == ("made", "y", 1)


def test_a_file_without_its_reader():
    """Where no plugin reads such files, the name is unknown."""
    assert SUFFIXES["denoiser"] == {".safetensors": "trained"}
    with pytest.raises(UnknownNameError, match=r"no denoiser 'x.safetensors'"):
        kd.Registry(load=False).entry("denoiser", "x.safetensors")
