"""`kdiff hosts`: the folders that put kdiff into another program, and installing them there."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ParameterError
from ..lookup import list_plugins
from ..names import did_you_mean, quoted
from .console import say, say_json

PACK = "pack"
_NAME = "kdiff"
_MARK = ".kdiff-pack"  # in a copy, to know it by


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="What there is")(hosts)


def packs() -> dict[str, Path]:
    """Return the folder for each host, by its name: ``HOST/pack`` in the package of a plugin."""
    found: dict[str, Path] = {}
    loaded = [record.module.partition(".")[0] for record in list_plugins() if record.state == "ok"]
    for package in dict.fromkeys(loaded):
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):  # what is registered by hand has no package
            continue
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for folder in sorted(Path(place).glob(f"*/{PACK}")):
                if folder.is_dir():
                    found.setdefault(folder.parent.name, folder.resolve())
    return found


def hosts(
    host: Annotated[str | None, typer.Argument(help="A host. Default: list them.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="The host's folder of such packs.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link it, so that it follows updates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the folder that puts kdiff into another program, or copy or link it there.

    Example: `kdiff hosts comfyui --to ComfyUI/custom_nodes --link`
    """
    found = packs()
    if host is None:
        if to is not None or link:
            raise ParameterError(f"--to and --link need a host: {quoted(found, 'or')}")
        rows = {name: str(folder) for name, folder in found.items()}
        say_json(rows) if as_json else say("\n".join(f"{name:10} {place}" for name, place in rows.items()))
        return
    if host not in found:
        raise ParameterError(f"no host {host!r}{did_you_mean(host, found)}; there are {quoted(found)}")
    if to is None:
        if link:
            raise ParameterError("--link needs --to FOLDER, where the link is made")
        say_json({host: str(found[host])}) if as_json else say(str(found[host]))
        return
    say(str(install(found[host], to, link)))


def install(pack: Path, to: Path, link: bool) -> Path:
    """Copy or link a pack into a folder, as ``FOLDER/kdiff``, in place of what was installed there so before.

    Raises:
        ParameterError: There is no such folder, or what is there is not of this function.
    """
    target = to / _NAME
    if not to.is_dir():
        raise ParameterError(f"--to {to}: no such folder; give the one that the host loads packs from")
    if target.is_symlink() or target.exists():
        _refuse_foreign(target)
        target.unlink() if target.is_symlink() else shutil.rmtree(target)
    if link:
        target.symlink_to(pack, target_is_directory=True)
        return target
    shutil.copytree(pack, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / _MARK).write_text(f"Copied from {pack} by kdiff hosts.\n", encoding="utf-8")
    return target


def _refuse_foreign(target: Path) -> None:
    own = target.readlink().name == PACK if target.is_symlink() else (target / _MARK).is_file()
    if not own:
        raise ParameterError(f"{target} is there already, and not made by `kdiff hosts`; move it away first")
