"""Real pictures for schemathesis, so that its jobs are accepted and it goes on with what they made.

Run on demand, with schemathesis installed beside the project:

    pristina serve --port 8080 &
    schemathesis --config-file tests/app/schemathesis.toml run --checks all --seed 21 \
        http://127.0.0.1:8080/api/v1/openapi.json
"""

import io

import schemathesis
from hypothesis import strategies
from PIL import Image


def picture(kind: str, mode: str = "RGB") -> bytes:
    """Return the file of a small picture of noise."""
    file = io.BytesIO()
    Image.effect_noise((40, 36), 60).convert(mode).save(file, kind)
    return file.getvalue()


FILES = [picture("PNG"), picture("PNG", "L"), picture("JPEG"), picture("WEBP")]
schemathesis.openapi.format("binary", strategies.sampled_from(FILES))
