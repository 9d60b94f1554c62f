"""Compare full-size checkpoint layouts with an independent forward pass; write ``checkpoints.md``.

The forward pass is that of ``tests/checkpoints/reference.py``. The weights are random, in the
layouts of FFHQ-256 (DPS's ``ffhq_10m.pt``) and CelebA-HQ-256 (SDEdit's ``celeba_hq.ckpt``). From
the root:

    python -m benchmarks.checkpoints
"""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path

import torch
from tests.checkpoints.reference import Form, adm_forward, ddpm_forward, make_adm, make_ddpm

from pristina.cli.weights import convert
from pristina.interop import export_diffusers
from pristina.priors import LoadOptions, load_prior
from pristina.restoration import restore

OUT = Path(__file__).with_suffix(".md")
WIDTHS = (128, 128, 256, 256, 512, 512)
FFHQ = Form(WIDTHS, blocks=1, attends=(4,), outputs=6, time=128)
CELEBA = Form(WIDTHS, blocks=2, attends=(4,))

TEXT = """# Full-size checkpoints

This table compares converted networks with an independent forward pass that uses the original names
of the weights ([reference.py](../tests/checkpoints/reference.py)) and shares no code with the
conversion. The weights are random, in two published layouts; the input is one picture of 256 x 256
px in float32. The tolerance is 1e-4. The table was written by `python -m benchmarks.checkpoints`
with torch {torch} on {machine}, {threads} thread; times are seconds of one processor core.

{layout_head}
{layouts}

## The same CelebA-HQ-256 network from every form

The table shows `restore` (method `mmse`, one call) of one 256-px picture with the checkpoint in
each form that `load_prior` accepts.

{form_head}
{forms}
"""


LAYOUT_HEAD = (
    *("layout", "parameters", "largest difference", "largest output"),
    *("wrong attention order would differ by", "load, CPU s", "forward, CPU s"),
)
FORM_HEAD = (
    *("form", "size, MB", "layout in the record", "file and hash in the record"),
    *("largest difference to the first", "load and restore, CPU s"),
)


def _row(*texts: object) -> str:
    return f"| {' | '.join(map(str, texts))} |"


def _head(titles: tuple[str, ...]) -> str:
    return f"{_row(*titles)}\n{'|---' * len(titles)}|"


def layout_row(
    name: str, path: Path, tensors: dict[str, torch.Tensor], form: Form, options: LoadOptions
) -> str:
    """Return one line of the first table."""
    torch.save(tensors, path)
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([400.0])
    begun = time.process_time()
    prior = load_prior(path, options=options, dtype=torch.float32)
    loaded = time.process_time()
    with torch.no_grad():
        found = prior.network(x, t).sample
        called = time.process_time()
        if form is FFHQ:
            expected, wrong = (
                adm_forward(tensors, form, x, t, heads=lambda c: c // 64, order=o)
                for o in ("legacy", "new")
            )
            other = f"{(wrong - expected).abs().max():.2g}"
        else:
            expected, other = ddpm_forward(tensors, form, x, t), "(one head, no order)"
    worst = float((found - expected).abs().max())
    assert worst < 1e-4, f"{name}: {worst}"
    millions = sum(p.numel() for p in prior.parameters()) / 1e6
    return _row(
        name,
        f"{millions:.1f} M",
        f"{worst:.1e}",
        f"{expected.abs().max():.2f}",
        other,
        f"{loaded - begun:.1f}",
        f"{called - loaded:.1f}",
    )


def form_rows(folder: Path, checkpoint: Path, tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the lines of the second table."""
    convert(str(checkpoint), folder / "own.safetensors")
    convert(str(checkpoint), folder / "half.safetensors", half=True)
    export_diffusers(load_prior(checkpoint), folder / "folder")
    torch.save(
        [{f"module.{name}": t for name, t in tensors.items()}, {"state": {}}, 1, 2],
        folder / "list.ckpt",
    )
    torch.save({name: t.half() for name, t in tensors.items()}, folder / "half.ckpt")
    forms = {
        "flat `.ckpt`": checkpoint,
        "list `[state, ...]` with `module.`": folder / "list.ckpt",
        "half-precision `.ckpt`": folder / "half.ckpt",
        "pristina safetensors": folder / "own.safetensors",
        "pristina safetensors, half": folder / "half.safetensors",
        "diffusers pipeline folder": folder / "folder",
    }
    u = torch.linspace(0, 1, 256)
    picture = torch.stack(
        [u.expand(256, 256), u[:, None].expand(256, 256), torch.full((256, 256), 0.5)]
    )
    picture = (
        picture + 0.1 * torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(2))
    ).clamp(0, 1)
    rows, first = [], None
    for name, path in forms.items():
        begun = time.process_time()
        done = restore(
            picture, method="mmse", prior=str(path), settings={"sigma": 0.1}, device="cpu"
        )
        seconds = time.process_time() - begun
        source = done.record()["weights"]
        first = done.picture.pixels if first is None else first
        worst = float((done.picture.pixels - first).abs().max())
        size = (
            sum(
                f.stat().st_size
                for f in (path.rglob("*") if path.is_dir() else [path])
                if f.is_file()
            )
            / 1e6
        )
        complete = source["file"] == str(path) and len(source["sha256"]) == 64
        rows.append(
            _row(
                name,
                f"{size:.0f}",
                source["layout"],
                "yes" if complete else "no",
                f"{worst:.1e}",
                f"{seconds:.1f}",
            )
        )
    return rows


def main() -> None:
    """Measure and write the page."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ffhq").mkdir()
        layouts = [
            layout_row(
                "FFHQ-256 (ADM)",
                folder / "ffhq" / "ffhq_10m.pt",
                make_adm(FFHQ),
                FFHQ,
                LoadOptions("legacy", head_channels=64),
            )
        ]
        tensors = make_ddpm(CELEBA)
        layouts.append(
            layout_row(
                "CelebA-HQ-256 (DDPM)", folder / "celeba_hq.ckpt", tensors, CELEBA, LoadOptions()
            )
        )
        forms = form_rows(folder, folder / "celeba_hq.ckpt", tensors)
    text = TEXT.format(
        torch=torch.__version__,
        machine=platform.machine(),
        threads=torch.get_num_threads(),
        layout_head=_head(LAYOUT_HEAD),
        form_head=_head(FORM_HEAD),
        layouts="\n".join(layouts),
        forms="\n".join(forms),
    )
    OUT.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
