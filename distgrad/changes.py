"""Counters of changes that a compiled step could not see otherwise, and that make it look again.

Invariant: whatever changes which Python a module or an optimizer runs, or which tensors it runs it on, counts here:
parameters, buffers, child modules, plain attributes, hooks, optimizers that are made or loaded. `modes` counts switches
between training and evaluation, which alternate, and which are compared one by one.
"""

structure = [0]
modes = [0]
