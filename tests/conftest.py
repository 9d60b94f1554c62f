"""One thread a process: the tests are small, and run several at a time."""

import torch

torch.set_num_threads(1)
