"""Datasets, samplers and loaders under torch.utils.data's names.

Invariant: batches of tensor datasets are made by indexing tensors; only items of the user's own datasets are Python
objects on the driver.
"""

from distgrad.utils.data.collate import default_collate, default_convert
from distgrad.utils.data.dataloader import DataLoader, get_worker_info
from distgrad.utils.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from distgrad.utils.data.distributed import DistributedSampler
from distgrad.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
]
