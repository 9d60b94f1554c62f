"""Catalogue of publicly known weights: their address, licence and domain, and open choices.

A hash stands here only where it has been published; None means unknown, never "any".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pristina.priors.checkpoints.options import LoadOptions, Predicts


@dataclass(frozen=True)
class CatalogueEntry:
    """A publicly known checkpoint.

    Attributes:
        name: Name by which it is fetched and loaded.
        title: Description in one line.
        file: Usual file name; the repository for one on the Hugging Face hub.
        licence: Licence of the weights as far as stated; the training images may have their own.
        options: Choices that its tensors leave open.
        page: Address of a page about it and, without ``url``, of the download.
        url: Address of the file; None when only a page leads to it.
        hub: Hub id, instead of ``url``.
        size_bytes: Size of the file; None if unknown.
        sha256: SHA-256 of the file; None if unknown.
        md5: MD5 of the file, which some publishers give instead.
        note: Further remark for whoever fetches it.
    """

    name: str
    title: str
    file: str
    licence: str
    options: LoadOptions
    page: str
    url: str | None = None
    hub: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    note: str = ""


FACES = LoadOptions(size_px=256, fixed_size=True, domain="aligned faces, 256 x 256 px")
_ADM_PAGE = "https://github.com/openai/guided-diffusion"
_ADM_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
_CM_PAGE = "https://github.com/openai/consistency_models"
_CM_URL = "https://openaipublic.blob.core.windows.net/consistency/"
_P2_PAGE = "https://github.com/jychoi118/P2-weighting"
_DDPM_PAGE = "https://github.com/pesser/pytorch_diffusion"
_DDPM_URL = "https://heibox.uni-heidelberg.de/f/{}/?dl=1"
_SDEDIT_URL = "https://image-editing-test-12345.s3-us-west-2.amazonaws.com/checkpoints/"
_MIT = "MIT (of the repository)"


def _adm(
    name: str,
    title: str,
    file: str,
    domain: str,
    px: int,
    more: LoadOptions = LoadOptions(),
    **rest: Any,
) -> CatalogueEntry:
    options = LoadOptions(
        "legacy",
        head_channels=64,
        predicts="eps",
        schedule="linear",
        size_px=px,
        fixed_size=False,
        domain=domain,
    )
    return CatalogueEntry(
        name, title, file, _MIT, more.or_else(options), _ADM_PAGE, _ADM_URL + file, **rest
    )


def _p2(name: str, domain: str, fixed: bool = True) -> CatalogueEntry:
    options = LoadOptions(
        "legacy",
        head_channels=64,
        predicts="eps",
        schedule="linear",
        size_px=256,
        fixed_size=fixed,
        domain=domain,
    )
    note = "Not fetched by name: download it from the folder that the page links to."
    return CatalogueEntry(
        f"{name}-p2",
        f"P2 weighting, {domain}",
        f"{name.replace('-', '')}_p2.pt",
        _MIT,
        options,
        _P2_PAGE,
        note=note,
    )


def _cm(name: str, file: str, domain: str, px: int, predicts: Predicts) -> CatalogueEntry:
    options = LoadOptions(
        "new", head_channels=64, predicts=predicts, size_px=px, fixed_size=False, domain=domain
    )
    kind = "EDM" if predicts == "edm" else "consistency model"
    note = (
        ""
        if predicts == "edm"
        else "Its one-call picture is a sample, not the mean of all possible ones."
    )
    return CatalogueEntry(
        name,
        f"{kind}, {domain}",
        file,
        f"{_MIT}; model card: research only",
        options,
        _CM_PAGE,
        _CM_URL + file,
        note=note,
    )


def _ddpm(name: str, key: str, file: str, md5: str, domain: str, px: int) -> CatalogueEntry:
    options = LoadOptions(
        predicts="eps", schedule="linear", size_px=px, fixed_size=False, domain=domain
    )
    title = f"Ho et al.'s DDPM, {domain}, averaged weights"
    return CatalogueEntry(
        name, title, file, _MIT, options, _DDPM_PAGE, _DDPM_URL.format(key), md5=md5
    )


def _hub(name: str, hub: str, domain: str, px: int, fixed: bool = False) -> CatalogueEntry:
    options = LoadOptions(size_px=px, fixed_size=fixed, domain=domain)
    return CatalogueEntry(
        name,
        f"Ho et al.'s DDPM, {domain}",
        hub,
        "Apache-2.0",
        options,
        f"https://huggingface.co/{hub}",
        hub=hub,
    )


_IMAGENET = "ImageNet photographs"
CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            "ffhq",
            "DPS's lightweight ADM, FFHQ",
            "ffhq_10m.pt",
            "not stated (FFHQ pictures: CC BY-NC-SA 4.0)",
            FACES.or_else(
                LoadOptions("legacy", head_channels=64, predicts="eps", schedule="linear")
            ),
            "https://github.com/DPS2022/diffusion-posterior-sampling",
            "https://huggingface.co/deepinv/diffunet/resolve/main/diffusion_ffhq_10m.pt",
            note="Fetched from the copy that the deepinv project keeps; its page has the authors'.",
        ),
        _adm(
            "imagenet256",
            "ADM, ImageNet 256, unconditional",
            "256x256_diffusion_uncond.pt",
            _IMAGENET,
            256,
            size_bytes=2_211_383_297,
            sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        _adm(
            "imagenet256-classes",
            "ADM, ImageNet 256, 1000 classes",
            "256x256_diffusion.pt",
            _IMAGENET,
            256,
        ),
        _adm(
            "imagenet512-classes",
            "ADM, ImageNet 512, 1000 classes",
            "512x512_diffusion.pt",
            _IMAGENET,
            512,
        ),
        _adm(
            "imagenet128-classes",
            "ADM, ImageNet 128, 1000 classes",
            "128x128_diffusion.pt",
            _IMAGENET,
            128,
            LoadOptions(heads=4),
        ),
        _adm(
            "imagenet64-classes",
            "ADM, ImageNet 64, 1000 classes",
            "64x64_diffusion.pt",
            _IMAGENET,
            64,
            LoadOptions(attention_order="new", schedule="cosine"),
        ),
        _adm(
            "lsun-bedroom", "ADM, LSUN bedroom", "lsun_bedroom.pt", "photographs of bedrooms", 256
        ),
        _adm("lsun-cat", "ADM, LSUN cat", "lsun_cat.pt", "photographs of cats", 256),
        _adm("lsun-horse", "ADM, LSUN horse", "lsun_horse.pt", "photographs of horses", 256),
        _adm(
            "lsun-horse-nodropout",
            "ADM, LSUN horse, no dropout",
            "lsun_horse_nodropout.pt",
            "photographs of horses",
            256,
        ),
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
        CatalogueEntry(
            "celebahq-ckpt",
            "SDEdit's DDPM, CelebA-HQ (BIRD, DDRM, DDNM)",
            "celeba_hq.ckpt",
            _MIT,
            FACES.or_else(LoadOptions(predicts="eps", schedule="linear")),
            "https://github.com/ermongroup/SDEdit",
            _SDEDIT_URL + "celeba_hq.ckpt",
            note="Its address is said to answer no more; celebahq is the same family.",
        ),
        _ddpm(
            "ddpm-bedroom",
            "b95206528f384185889b",
            "model-2388000.ckpt",
            "1921fa46b66a3665e450e42f36c2720f",
            "bedrooms",
            256,
        ),
        _ddpm(
            "ddpm-cat",
            "0701aac3aa69457bbe34",
            "model-1761000.ckpt",
            "646f23f4821f2459b8bafc57fd824558",
            "cats",
            256,
        ),
        _ddpm(
            "ddpm-church",
            "44ccb50ef3c6436db52e",
            "model-4432000.ckpt",
            "fdc68a23938c2397caba4a260bc2445f",
            "churches",
            256,
        ),
        _ddpm(
            "ddpm-cifar10",
            "2e4f01e2d9ee49bab1d5",
            "model-790000.ckpt",
            "1fa350b952534ae442b1d5235cce5cd3",
            "CIFAR-10 thumbnails",
            32,
        ),
        _hub(
            "celebahq",
            "google/ddpm-ema-celebahq-256",
            "aligned faces, 256 x 256 px",
            256,
            fixed=True,
        ),
        _hub(
            "celebahq-raw",
            "google/ddpm-celebahq-256",
            "aligned faces, 256 x 256 px",
            256,
            fixed=True,
        ),
        _hub("hub-bedroom", "google/ddpm-ema-bedroom-256", "photographs of bedrooms", 256),
        _hub("hub-cat", "google/ddpm-ema-cat-256", "photographs of cats", 256),
        _hub("hub-church", "google/ddpm-ema-church-256", "photographs of churches", 256),
        _hub("hub-cifar10", "google/ddpm-cifar10-32", "CIFAR-10 thumbnails", 32),
    )
}


def identify(file: str, sha256: str, size_bytes: int) -> tuple[CatalogueEntry | None, bool]:
    """Find a file in the catalogue.

    A name is no hint where the hash or the size of the published file is known and differs.

    Args:
        file: Name of the file.
        sha256: Its hash.
        size_bytes: Its size.

    Returns:
        The entry, or None; and whether it is certain (by hash) or only a hint (by name).
    """
    for entry in CATALOGUE.values():
        if entry.sha256 == sha256:
            return entry, True
    for entry in CATALOGUE.values():
        same_name = entry.file == file or (entry.url or "").rpartition("/")[2] == file
        if same_name and entry.sha256 is None and entry.size_bytes in (None, size_bytes):
            return entry, False
    return None, False
