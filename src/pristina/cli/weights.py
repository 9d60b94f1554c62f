"""``pristina weights``: list known weights, fetch them, check a file, convert it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pristina.cli.console import make_console, printable
from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE
from pristina.priors.checkpoints.options import LoadOptions

app = App(name="weights", help="List known weights, fetch them, check a file, convert it.")


@app.command(name="list")
def list_(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """List the weights that come with pristina and those that are publicly known.

    Nothing is fetched.

    Parameters
    ----------
    as_json
        Print everything that is known, as JSON.
    """
    from pristina.priors.checkpoints.fetch import cache_dir, describe
    from pristina.priors.checkpoints.header import read_spec

    rows = [describe(entry) for entry in CATALOGUE.values()]
    if as_json:
        ours = {name: str(path) for name, path in shipped_files().items()}
        print(json.dumps({"shipped": ours, "known": rows, "cache": str(cache_dir())}, indent=2))
        return
    from rich.table import Table

    table = Table("name", "domain", "px", "licence", "here", box=None, pad_edge=False)
    for name, path in shipped_files().items():
        spec = read_spec(path)
        if spec is not None:
            size = str(spec.size_px) if spec.fixed_size else "any"
            table.add_row(name, spec.domain, size, "see its card", "shipped")
    for row in rows:
        entry = CATALOGUE[row["name"]]
        where = "yes" if row["here"] else "no" if entry.url or entry.hub else "on its page"
        table.add_row(row["name"], row["domain"], str(row["size_px"]), row["licence"], where)
    make_console(output=True).print(table)
    print(f"\nCache: {cache_dir()}. Everything about each: pristina weights list --json")


def shipped_files() -> dict[str, Path]:
    """List the weights in the package, without loading torch."""
    folder = Path(__file__).parents[1] / "priors" / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


@app.command
def fetch(
    name: str,
    *,
    sha256: str | None = None,
    offline: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Fetch weights into the cache; an interrupted download goes on where it ended.

    Parameters
    ----------
    name
        A name from the list, a Hugging Face hub id (owner/name), or an http(s) address.
    sha256
        SHA-256 that the file must have, for an address.
    offline
        Make no connection: only tell whether it is in the cache.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from pristina.files import sha256_of
    from pristina.priors.checkpoints.fetch import fetch as get

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(name, total=None, visible=False)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        path = get(name, sha256=sha256, forbid=offline, on_bytes=show)
    print(path)
    entry = CATALOGUE.get(name)
    if path.is_file() and not sha256 and not (entry and (entry.sha256 or entry.md5)):
        print(f"No hash has been published for it; this file has sha256 {sha256_of(path)}.")
    if entry and entry.note:
        print(entry.note)


@app.command
def check(
    source: str, *, options: Annotated[LoadOptions, Parameter(name="*")] = LoadOptions()
) -> None:
    """Describe a weight file or folder, or tell why it cannot be used. Nothing is written.

    The network is built and called once on a small image.

    Parameters
    ----------
    source
        A file, a diffusers folder, or a name that load_prior takes.
    options
        Choices that the file leaves open.
    """
    from pristina.priors.load import LOADERS, kind_of, load_weights

    kind = kind_of(source)
    prior = load_weights(kind, source, options=options)
    rule = prior.size_rule
    size = f"multiples of {rule.multiple} px, trained at {rule.native} px"
    if rule.fixed:
        size = f"{rule.native} px only"
    elif kind in ("direct", "conditional", "operator", "scratches", "reader"):
        size = "any"
    parameters = getattr(prior, "n_parameters", 0) or sum(p.numel() for p in prior.parameters())
    scale = getattr(prior, "scale", 1)
    rows = {
        "domain": prior.domain,
        "kind": LOADERS[kind].what,
        "sizes": f"{size}; {prior.channels} channels",
        "enlarges": f"{scale} times" if scale > 1 else "",
        "parameters": f"{parameters / 1e6:.1f} million",
        **prior.source,
    }
    for key, value in rows.items():
        if value:
            print(f"{key:13s} {printable(value)}")


@app.command
def convert(
    source: str,
    out: Path,
    *,
    half: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[LoadOptions, Parameter(name="*")] = LoadOptions(),
) -> None:
    """Write the checkpoint of another project as pristina's own safetensors.

    They hold every setting that the checkpoint left open.

    Parameters
    ----------
    source
        A file, a diffusers folder, or a fetched name.
    out
        NAME.safetensors.
    half
        Store in half precision: half the size, rounded to three digits.
    options
        Choices that the file leaves open.
    """
    import torch

    from pristina.priors.checkpoints.format import check_weights_output, save_weights
    from pristina.priors.load import describe_file, find_weights, load_prior

    path = find_weights(source)
    check_weights_output(out, inputs=[path])
    if describe_file(path) is not None:
        raise CheckpointError(
            f"{path} was written by pristina already; there is nothing to convert."
        )
    prior = load_prior(path, dtype=torch.float32, options=options)
    network, spec = prior.network, prior.spec
    assert isinstance(network, torch.nn.Module)
    assert spec is not None
    unet = getattr(network, "unet", network)  # EDM's scaling stands around it.
    save_weights(out, unet.state_dict(), spec.to_json(), torch.float16 if half else torch.float32)
    origin = spec.source
    attention = (
        f"; {origin['attention']}, by {origin['decided']}" if origin.get("attention") else ""
    )
    print(f"{printable(out)}: from {origin['layout']}, {spec.domain}{attention}")


@app.command
def export(source: str, out: Path) -> None:
    """Write a regressor as an ONNX file, for other programs.

    It takes pictures (n, 3, height, width) in [0, 1], whose sides are multiples of what is printed,
    and restores them in one call.

    Parameters
    ----------
    source
        Shipped name or weight file of a regressor (kind indi).
    out
        NAME.onnx.
    """
    from pristina.priors.export import export_onnx

    multiple = export_onnx(source, out)
    print(f"{printable(out)}: pictures in [0, 1], both sides a multiple of {multiple} px")
