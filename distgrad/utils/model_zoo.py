"""`utils.model_zoo`: the older name of what `hub` has.

Invariant: nothing is downloaded.
"""

from distgrad.hub import load_state_dict_from_url

__all__ = ["load_url"]

load_url = load_state_dict_from_url
