"""`hub` under PyTorch's names: pretrained models are PyTorch's files and are not fetched here.

Invariant: nothing is downloaded and no downloaded code is run.
"""

from __future__ import annotations

from typing import Any

__all__ = ["load", "load_state_dict_from_url"]


def load(repo_or_dir: Any, model: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Raises RuntimeError: models of the hub are built with PyTorch's internals."""
    raise RuntimeError(f"hub.load: distgrad fetches no models, asked for {model!r} of {repo_or_dir!r}; build the model "
                       "in the script and load its safetensors file")  # fmt: skip


def load_state_dict_from_url(url: str, *args: Any, **kwargs: Any) -> Any:
    """Raises RuntimeError: the files are pickles of PyTorch's."""
    raise RuntimeError(f"hub.load_state_dict_from_url: distgrad fetches nothing, asked for {url!r}; save the file as "
                       "safetensors and give it to load()")  # fmt: skip
