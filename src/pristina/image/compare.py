"""Comparison sheets of several pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pristina.image.picture import Picture


def side_by_side(pictures: Sequence[tuple[str, Picture]], height: int = 0) -> Image.Image:
    """Draw pictures in a row, each under its caption, as one Pillow image.

    Args:
        pictures: Captions and pictures.
        height: Height of every picture in pixels; 0 takes the tallest, and at least 256.
    """
    height = height or max(256, *(p.size[0] for _, p in pictures))
    font = ImageFont.load_default(max(12, height // 18))
    bar, gap = height // 9, max(4, height // 64)
    scaled = []
    for caption, picture in pictures:
        image = picture.to_pillow().convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
        whole = height % image.height == 0
        smooth = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
        width = round(image.width * height / image.height)
        scaled.append((caption, image.resize((width, height), smooth)))
    width = sum(image.width for _, image in scaled) + gap * (len(scaled) - 1)
    sheet = Image.new("RGB", (width, height + bar), "white")
    pen, left = ImageDraw.Draw(sheet), 0
    for caption, image in scaled:
        sheet.paste(image, (left, bar))
        pen.text((left + image.width / 2, bar / 2), caption, fill="black", font=font, anchor="mm")
        left += image.width + gap
    return sheet
