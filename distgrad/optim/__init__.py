"""Optimizers and learning rate schedules under torch.optim's names.

Invariant: every name here means what the same name in torch.optim means; state dicts have torch's layout.
"""

from distgrad.optim import lr_scheduler, swa_utils
from distgrad.optim.adafactor import Adafactor
from distgrad.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from distgrad.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from distgrad.optim.lbfgs import LBFGS
from distgrad.optim.optimizer import Optimizer
from distgrad.optim.sgd import ASGD, SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
    "swa_utils",
]
