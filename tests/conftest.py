"""Array shapes and types are checked, and each process has one thread: the tests are small."""

import torch
from jaxtyping import install_import_hook

import tests.checked  # noqa: F401  (the hook finds it by name)

torch.set_num_threads(1)
install_import_hook("pristina", "tests.checked.checked")
