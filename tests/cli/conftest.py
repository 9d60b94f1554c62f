import numpy as np
import pytest
import torch
from PIL import Image

from pristina.cli import main
from pristina.priors.checkpoints.format import save_weights
from pristina.priors.patch_unet import PatchUNet


@pytest.fixture(scope="session")
def prior_file(tmp_path_factory):
    """A tiny prior with random weights."""
    settings = {
        "channels": [16, 32],
        "layers": 1,
        "patch": 2,
        "attention": False,
        "norm": "group",
        "inputs": 3,
        "outputs": 3,
        "labels": 0,
    }
    torch.manual_seed(0)
    network = PatchUNet(settings)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    header = {
        "kind": "prior",
        "prediction": "flow",
        "network": settings,
        "domain": "nothing in particular",
        "size_px": 16,
        "fixed_size": False,
    }
    save_weights(path, network.state_dict(), header)
    return path


@pytest.fixture
def picture_file(tmp_path):
    path = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 22, 3), dtype=np.uint8)).save(
        path
    )
    return path


@pytest.fixture
def pristina(capfd):
    """Run the command line; gives output and errors."""

    def run(*words: object, status: int = 0) -> str:
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        text = "".join(capfd.readouterr())
        assert code == status, text
        assert "Traceback" not in text, text
        return text

    return run
