"""Array shapes and types are checked, and each process has one thread: the tests are small."""

import cyclopts  # noqa: F401
import jaxtyping
import scipy.special  # noqa: F401
import torch
from diffusers import DDIMScheduler, UNet2DModel  # noqa: F401

import tests.checked  # (the hook finds it by name)

# What a module under the hook imports first is compiled anew: these were imported before it.
torch.set_num_threads(1)
jaxtyping.jaxtyped = tests.checked.where_shapes_are_named
jaxtyping.install_import_hook("pristina", "tests.checked.checked")
