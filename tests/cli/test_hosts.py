"""``kdiff hosts``: where the packs are, and installing them by copying or linking one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdiff_core.cli import main
from kdiff_core.cli.hosts import PACK, packs


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def test_it_lists_and_prints_the_folders(kdiff):
    """Each host with its folder; one host gives the folder alone, for use in a command."""
    status, out, _ = kdiff("hosts", "--json")
    listed = json.loads(out)
    assert (status, set(listed)) == (0, set(packs()))
    assert "comfyui" in listed
    assert all(name in kdiff("hosts")[1] for name in listed)
    for name, folder in listed.items():
        assert Path(folder).is_dir()
        assert Path(folder).parts[-2:] == (name, PACK)
        assert kdiff("hosts", name)[1] == f"{folder}\n"


@pytest.mark.parametrize("link", [False, True])
def test_it_installs_and_updates(kdiff, tmp_path, link):
    """The folder is copied or linked as ``kdiff``; again takes the place of what was so installed."""
    nodes, source = tmp_path / "custom_nodes", packs()["comfyui"]
    nodes.mkdir()
    for how in (["--link"] * link, ["--link"] * (not link), ["--link"] * link):
        status, out, _ = kdiff("hosts", "comfyui", "--to", "custom_nodes", *how)
        assert (status, out.strip()) == (0, "custom_nodes/kdiff")
    assert [path.name for path in nodes.iterdir()] == ["kdiff"]
    assert (nodes / "kdiff").is_symlink() is link
    for file in source.glob("*.py"):
        assert (nodes / "kdiff" / file.name).read_bytes() == file.read_bytes()
    if not link:
        (nodes / "kdiff" / "old.py").touch()
        kdiff("hosts", "comfyui", "--to", "custom_nodes")
        assert not (nodes / "kdiff" / "old.py").exists()


def test_it_touches_nothing_of_others(kdiff, tmp_path):
    """A folder or a link of that name which it did not make is refused and stays."""
    (tmp_path / "kdiff").mkdir()
    (tmp_path / "kdiff" / "mine.txt").touch()
    status, _, err = kdiff("hosts", "comfyui", "--to", tmp_path)
    assert (status, "is there already" in err) == (2, True)
    assert (tmp_path / "kdiff" / "mine.txt").exists()
    (tmp_path / "kdiff").rename(tmp_path / "theirs")
    (tmp_path / "kdiff").symlink_to(tmp_path / "theirs")
    assert kdiff("hosts", "comfyui", "--to", tmp_path, "--link")[0] == 2
    assert (tmp_path / "kdiff" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["comfy"], "did you mean 'comfyui'"),
        (["--link"], "need a host"),
        (["comfyui", "--link"], "--to"),
        (["comfyui", "--to", "nowhere"], "no such folder"),
    ],
)
def test_refusals(kdiff, args, says):
    """What is missing or unknown is said, and nothing is written."""
    status, _, err = kdiff("hosts", *args)
    assert (status, says in err) == (2, True)
    assert list(Path.cwd().iterdir()) == []
