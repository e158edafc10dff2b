"""One thread in every unit test: sums are the same to the last bit, and tiny models are not slowed by sharing them out."""

import torch

torch.set_num_threads(1)
