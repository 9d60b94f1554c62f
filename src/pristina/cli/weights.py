"""``pristina weights``: what is known, fetching it, looking into a file, and writing it in our own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pristina.errors import CheckpointError
from pristina.priors.checkpoints.catalogue import CATALOGUE, Reading

app = App(name="weights", help="Weights: what is known, fetching it, looking into a file, converting it.")


@app.command(name="list")
def list_(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """List the weights that come with pristina and those that are publicly known. Fetches nothing.

    Parameters
    ----------
    as_json
        Print everything that is known, as JSON.
    """
    from pristina.priors.checkpoints.fetch import cache_dir, describe
    from pristina.priors.checkpoints.header import read_header

    rows = [describe(known) for known in CATALOGUE.values()]
    if as_json:
        print(json.dumps({"shipped": {n: str(p) for n, p in shipped_files().items()}, "known": rows, "cache": str(cache_dir())}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "knows", "px", "licence", "here", box=None, pad_edge=False)
    for name, path in shipped_files().items():
        header = read_header(path) or {}
        table.add_row(name, header["domain"], str(header["size_px"]) if header.get("fixed_size") else "any", "see its card", "shipped")
    for row in rows:
        where = "yes" if row["here"] else "no" if CATALOGUE[row["name"]].url or CATALOGUE[row["name"]].hub else "by hand"
        table.add_row(row["name"], row["knows"], str(row["size_px"]), row["licence"], where)
    console = Console()
    console.print(table)
    console.print(f"\nCache: {cache_dir()}. Everything about each: pristina weights list --json", soft_wrap=True, highlight=False)


def shipped_files() -> dict[str, Path]:
    """The weights in the package, without loading torch."""
    folder = Path(__file__).parents[1] / "priors" / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


@app.command
def fetch(name: str, *, sha256: str | None = None, offline: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Fetch weights into the cache; an interrupted download goes on where it ended.

    Parameters
    ----------
    name
        A name from the list, a Hugging Face hub id (owner/name), or an http(s) address.
    sha256
        What the file must hash to, for an address.
    offline
        Make no connection: only say whether it is there.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from pristina.priors.checkpoints.fetch import fetch as get

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(name, total=None, visible=False)
        path = get(
            name, sha256=sha256, forbid=offline, on_bytes=lambda done, all_: progress.update(task, completed=done, total=all_, visible=True)
        )
    print(path)
    known = CATALOGUE.get(name)
    if path.is_file() and not sha256 and not (known and (known.sha256 or known.md5)):
        from pristina.priors.checkpoints.safe_load import sha256_of

        print(f"No hash has been published for it; this file has sha256 {sha256_of(path)}.")
    if known and known.note:
        print(known.note)


@app.command
def check(source: str, *, reading: Annotated[Reading, Parameter(name="*")] = Reading()) -> None:
    """Say what a weight file or folder is, or why it cannot be a prior. Writes nothing.

    Parameters
    ----------
    source
        A file, a diffusers folder, or a name that load_prior takes.
    reading
        What the file does not say, where it has to be said.
    """
    from pristina.priors.load import load_prior

    prior = load_prior(source, reading=reading)
    rule = prior.size_rule
    size = f"{rule.native} px only" if rule.fixed else f"multiples of {rule.multiple} px, trained at {rule.native} px"
    print(f"knows         {prior.domain}")
    print(f"sizes         {size}; {prior.channels} channels")
    print(f"parameters    {sum(p.numel() for p in prior.parameters()) / 1e6:.1f} million")
    for key, value in prior.source.items():
        if value:
            print(f"{key:13s} {value}")


@app.command
def convert(
    source: str,
    out: Path,
    *,
    half: Annotated[bool, Parameter(negative="")] = False,
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),
) -> None:
    """Write a foreign checkpoint as pristina's own safetensors, which say all about themselves.

    Parameters
    ----------
    source
        A file, a diffusers folder, or a fetched name.
    out
        NAME.safetensors.
    half
        Store in half precision: half the size, rounded to three digits.
    reading
        What the file does not say, where it has to be said.
    """
    import torch

    from pristina.priors.checkpoints.detect import open_checkpoint
    from pristina.priors.checkpoints.format import check_weights_output, save_weights
    from pristina.priors.checkpoints.header import read_header
    from pristina.priors.load import find_weights

    path = find_weights(source)
    check_weights_output(out, inputs=[path])
    if path.suffix == ".safetensors" and read_header(path) is not None:
        raise CheckpointError(f"{path} was written by pristina already; there is nothing to convert.")
    recipe, tensors = open_checkpoint(path, reading)
    save_weights(out, tensors, recipe, torch.float16 if half else torch.float32)
    told = recipe["source"]
    settled = f"; {told['attention']}, by {told['decided']}" if told.get("attention") else ""
    print(f"{out}: from {told['layout']}, {recipe['domain']}{settled}")
