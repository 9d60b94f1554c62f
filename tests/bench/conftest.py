import torch

torch.set_num_threads(1)  # what is measured here is small
