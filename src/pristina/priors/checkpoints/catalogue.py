"""Weights that are publicly known: where they are, what they know, and what their tensors cannot say.

A hash stands here only where it has been published; None means unknown, never "any".
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

AttentionOrder = Literal["auto", "legacy", "new"]
Predicts = Literal["auto", "eps", "v", "x0", "edm", "consistency"]


@dataclass(frozen=True)
class Reading:
    """How to read a foreign checkpoint where its tensors leave a choice; ``auto`` and None are to be found out.

    Attributes:
        attention_order: ``legacy`` (for each head q, k, v) or ``new`` (all q, all k, all v): the shapes are the same.
        head_channels: Channels of an attention head, the same on every level.
        heads: Attention heads, the same number on every level; instead of ``head_channels``.
        predicts: What the network returns: noise (``eps``), ``v``, the clean picture (``x0``), or what EDM and consistency models do.
        schedule: The noise schedule it was trained with.
        label: Class to which a class-conditional network is fixed; None takes the mean of all class embeddings.
        weights: The averaged (``ema``) or the last trained (``raw``) weights, in a file with both; ``auto`` takes the averaged ones.
        size_px: Side of the pictures it was trained on.
        fixed_size: Whether only that size makes sense (aligned faces).
        domain: One sentence: what kind of picture it knows.
    """

    attention_order: AttentionOrder = "auto"
    head_channels: int | None = None
    heads: int | None = None
    predicts: Predicts = "auto"
    schedule: Literal["auto", "linear", "cosine"] = "auto"
    label: int | None = None
    weights: Literal["auto", "ema", "raw"] = "auto"
    size_px: int | None = None
    fixed_size: bool | None = None
    domain: str | None = None

    def or_else(self, other: Reading) -> Reading:
        """This reading, with what it leaves open taken from ``other``."""
        closed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, "auto")}
        if "heads" in closed or "head_channels" in closed:  # two ways to say one thing
            closed = {"heads": None, "head_channels": None, **closed}
        return replace(other, **closed)


@dataclass(frozen=True)
class Known:
    """A publicly known checkpoint.

    Attributes:
        name: What to call it.
        title: One line.
        file: Its usual file name; the repository for one on the Hugging Face hub.
        licence: Of the weights, as far as stated; the pictures they were trained on may have their own.
        reading: What its tensors cannot say.
        url: Where the file is; None when only a page leads to it.
        hub: Hub id, instead of ``url``.
        page: Where to read about it and, without ``url``, to get it.
        size_bytes: Of the file; None if unknown.
        sha256: Of the file; None if unknown.
        md5: As some publishers give it instead.
        note: Whatever else matters before it is fetched.
    """

    name: str
    title: str
    file: str
    licence: str
    reading: Reading
    page: str
    url: str | None = None
    hub: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    note: str = ""


FACES = Reading(size_px=256, fixed_size=True, domain="aligned faces, 256 x 256 px")
_ADM_PAGE = "https://github.com/openai/guided-diffusion"
_ADM_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
_CM_PAGE = "https://github.com/openai/consistency_models"
_CM_URL = "https://openaipublic.blob.core.windows.net/consistency/"
_P2_PAGE = "https://github.com/jychoi118/P2-weighting"
_DDPM_PAGE = "https://github.com/pesser/pytorch_diffusion"
_DDPM_URL = "https://heibox.uni-heidelberg.de/f/{}/?dl=1"
_SDEDIT_URL = "https://image-editing-test-12345.s3-us-west-2.amazonaws.com/checkpoints/"
_MIT = "MIT (of the repository)"


def _adm(name: str, title: str, file: str, domain: str, px: int, more: Reading = Reading(), **rest: str | int) -> Known:
    told = Reading("legacy", head_channels=64, predicts="eps", schedule="linear", size_px=px, fixed_size=False, domain=domain)
    return Known(name, title, file, _MIT, more.or_else(told), _ADM_PAGE, _ADM_URL + file, **rest)  # type: ignore[arg-type]


def _p2(name: str, domain: str, fixed: bool = True) -> Known:
    told = Reading("legacy", head_channels=64, predicts="eps", schedule="linear", size_px=256, fixed_size=fixed, domain=domain)
    note = "Only by hand, from the folder that the page links to."
    return Known(f"{name}-p2", f"P2 weighting, {domain}", f"{name.replace('-', '')}_p2.pt", _MIT, told, _P2_PAGE, note=note)


def _cm(name: str, file: str, domain: str, px: int, predicts: Predicts) -> Known:
    told = Reading("new", head_channels=64, predicts=predicts, size_px=px, fixed_size=False, domain=domain)
    kind = "EDM" if predicts == "edm" else "consistency model"
    note = "" if predicts == "edm" else "Its one-call picture is a sample, not the mean of all possible ones."
    return Known(name, f"{kind}, {domain}", file, f"{_MIT}; model card: research only", told, _CM_PAGE, _CM_URL + file, note=note)


def _ddpm(name: str, key: str, file: str, md5: str, domain: str, px: int) -> Known:
    told = Reading(predicts="eps", schedule="linear", size_px=px, fixed_size=False, domain=domain)
    title = f"Ho et al.'s DDPM, {domain}, averaged weights"
    return Known(name, title, file, _MIT, told, _DDPM_PAGE, _DDPM_URL.format(key), md5=md5)


def _hub(name: str, hub: str, domain: str, px: int, fixed: bool = False) -> Known:
    told = Reading(size_px=px, fixed_size=fixed, domain=domain)
    return Known(name, f"Ho et al.'s DDPM, {domain}", hub, "Apache-2.0", told, f"https://huggingface.co/{hub}", hub=hub)


_IMAGENET = "ImageNet photographs"
CATALOGUE = {
    known.name: known
    for known in (
        Known(
            "ffhq", "DPS's lightweight ADM, FFHQ", "ffhq_10m.pt", "not stated (FFHQ pictures: CC BY-NC-SA 4.0)",
            FACES.or_else(Reading("legacy", head_channels=64, predicts="eps", schedule="linear")),
            "https://github.com/DPS2022/diffusion-posterior-sampling",
            "https://huggingface.co/deepinv/diffunet/resolve/main/diffusion_ffhq_10m.pt",
            note="Fetched from the copy that the deepinv project keeps; the authors' own is on the page, by hand.",
        ),
        _adm(
            "imagenet256", "ADM, ImageNet 256, unconditional", "256x256_diffusion_uncond.pt", _IMAGENET, 256,
            size_bytes=2_211_383_297, sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        _adm("imagenet256-classes", "ADM, ImageNet 256, 1000 classes", "256x256_diffusion.pt", _IMAGENET, 256),
        _adm("imagenet512-classes", "ADM, ImageNet 512, 1000 classes", "512x512_diffusion.pt", _IMAGENET, 512),
        _adm("imagenet128-classes", "ADM, ImageNet 128, 1000 classes", "128x128_diffusion.pt", _IMAGENET, 128, Reading(heads=4)),
        _adm(
            "imagenet64-classes", "ADM, ImageNet 64, 1000 classes", "64x64_diffusion.pt", _IMAGENET, 64,
            Reading(attention_order="new", schedule="cosine"),
        ),
        _adm("lsun-bedroom", "ADM, LSUN bedroom", "lsun_bedroom.pt", "photographs of bedrooms", 256),
        _adm("lsun-cat", "ADM, LSUN cat", "lsun_cat.pt", "photographs of cats", 256),
        _adm("lsun-horse", "ADM, LSUN horse", "lsun_horse.pt", "photographs of horses", 256),
        _adm("lsun-horse-nodropout", "ADM, LSUN horse, no dropout", "lsun_horse_nodropout.pt", "photographs of horses", 256),
        _p2("ffhq", "aligned faces (FFHQ)"),
        _p2("celeba-hq", "aligned faces (CelebA-HQ)"),
        _p2("afhq-dog", "aligned dog faces (AFHQ)"),
        _p2("cub", "birds (CUB)", fixed=False),
        _p2("flowers", "flowers (Oxford 102)", fixed=False),
        _p2("metfaces", "aligned painted and sculpted faces (MetFaces)"),
        _cm("edm-imagenet64", "edm_imagenet64_ema.pt", _IMAGENET, 64, "edm"),
        _cm("edm-bedroom", "edm_bedroom256_ema.pt", "photographs of bedrooms", 256, "edm"),
        _cm("edm-cat", "edm_cat256_ema.pt", "photographs of cats", 256, "edm"),
        _cm("cd-imagenet64", "cd_imagenet64_l2.pt", _IMAGENET, 64, "consistency"),
        _cm("cd-bedroom", "cd_bedroom256_l2.pt", "photographs of bedrooms", 256, "consistency"),
        _cm("cd-cat", "cd_cat256_l2.pt", "photographs of cats", 256, "consistency"),
        Known(
            "celebahq-ckpt", "SDEdit's DDPM, CelebA-HQ (BIRD, DDRM, DDNM)", "celeba_hq.ckpt", _MIT,
            FACES.or_else(Reading(predicts="eps", schedule="linear")),
            "https://github.com/ermongroup/SDEdit", _SDEDIT_URL + "celeba_hq.ckpt",
            note="Its address is said to answer no more; celebahq is the same family.",
        ),
        _ddpm("ddpm-bedroom", "b95206528f384185889b", "model-2388000.ckpt", "1921fa46b66a3665e450e42f36c2720f", "bedrooms", 256),
        _ddpm("ddpm-cat", "0701aac3aa69457bbe34", "model-1761000.ckpt", "646f23f4821f2459b8bafc57fd824558", "cats", 256),
        _ddpm("ddpm-church", "44ccb50ef3c6436db52e", "model-4432000.ckpt", "fdc68a23938c2397caba4a260bc2445f", "churches", 256),
        _ddpm("ddpm-cifar10", "2e4f01e2d9ee49bab1d5", "model-790000.ckpt", "1fa350b952534ae442b1d5235cce5cd3", "CIFAR-10 thumbnails", 32),
        _hub("celebahq", "google/ddpm-ema-celebahq-256", "aligned faces, 256 x 256 px", 256, fixed=True),
        _hub("celebahq-raw", "google/ddpm-celebahq-256", "aligned faces, 256 x 256 px", 256, fixed=True),
        _hub("hub-bedroom", "google/ddpm-ema-bedroom-256", "photographs of bedrooms", 256),
        _hub("hub-cat", "google/ddpm-ema-cat-256", "photographs of cats", 256),
        _hub("hub-church", "google/ddpm-ema-church-256", "photographs of churches", 256),
        _hub("hub-cifar10", "google/ddpm-cifar10-32", "CIFAR-10 thumbnails", 32),
    )
}  # fmt: skip


def identify(file: str, sha256: str, size_bytes: int) -> tuple[Known | None, bool]:
    """The catalogue's entry for a file, and whether that is certain (its hash) or only a hint (its name).

    A name is no hint where the hash or the size of the real file is known and differs.
    """
    for known in CATALOGUE.values():
        if known.sha256 == sha256:
            return known, True
    for known in CATALOGUE.values():
        same_name = known.file == file or (known.url or "").rpartition("/")[2] == file
        if same_name and known.sha256 is None and known.size_bytes in (None, size_bytes):
            return known, False
    return None, False
