"""What gradient functions are called when a tensor prints: PyTorch's names, worked out from the recorded op.

Invariant: looked up when a name is asked for; recording pays nothing for it.
"""

from __future__ import annotations

from typing import Any

# Ops whose gradient functions are not named after the op.
_NAMES = {
    "affine": "NativeLayerNorm", "cast": "ToCopy", "clamp_max": "Clamp", "clamp_min": "Clamp",
    "concat": "Cat", "conv": "Convolution", "dropout": "Mul", "embed_diagonal": "DiagEmbed",
    "layer_norm": "NativeLayerNorm",
    "linear": "Mm", "log1p": "Log1P", "matmul": "Mm", "max_along": "Max", "median_of_all": "Median", "min_along": "Min",
    "nll": "NllLoss", "pad": "ConstantPadNd", "reshape": "View", "square": "Pow", "standardize": "NativeLayerNorm",
    "take_along": "Gather", "take_rows": "Index",
}  # fmt: skip
# Ops of which PyTorch has several overloads, the gradient function of this one being the second.
_SECOND = frozenset(("clamp", "clamp_max", "clamp_min"))
_REDUCTIONS = frozenset(("mean", "prod", "sum"))


def name_of(fn: Any) -> str:
    """Gives PyTorch's name for a recorded op's gradient function: "LogSoftmaxBackward0" for log_softmax."""
    plan = fn.plan
    op = plan.op.name
    name = _NAMES.get(op) or "".join(part.capitalize() for part in op.split("_"))
    number = int(op in _SECOND)
    shapes = [None if isinstance(spec, type) else spec.meta.shape for spec in plan.ins]
    if op in ("linear", "matmul") and len(plan.outs[0].meta.shape) > 2:
        name = "UnsafeView" if op == "linear" else "Bmm"
    elif op == "linear_bias" or (op == "add" and _made_by(fn, "linear")):
        name = "Addmm" if len(plan.outs[0].meta.shape) == 2 else "View"
    elif op == "reshape" and _made_by(fn, "slice") and len(plan.outs[0].meta.shape) < len(shapes[0] or ()):
        name = "Select"
    elif op == "subscript":  # PyTorch's last op: what was done along the last axis
        name = "Select" if plan.attrs["sizes"][-1] == 1 and len(plan.outs[0].meta.shape) < len(shapes[0] or ()) else "Slice"
    elif op == "slice_scatter":
        return "CopySlices"
    elif op in ("amax", "amin") and plan.outs[0].meta.shape == ():
        name, number = name[1:].capitalize(), 1
    elif op in _REDUCTIONS:
        number = int(plan.outs[0].meta.shape != ())
    elif op == "pow":
        number = 2 if shapes[0] is None else int(shapes[1] is not None)
    elif op == "sub" and shapes[0] is None:
        name, number = "Rsub", 1
    elif op == "div" and shapes[0] is None:
        name = "Mul"  # of the reciprocal
    return f"{name}Backward{number}"


def _made_by(fn: Any, op: str) -> bool:
    """Says whether the first input came from an op."""
    edge = fn.edges[0]
    return isinstance(edge, tuple) and hasattr(edge[0], "plan") and edge[0].plan.op.name == op
