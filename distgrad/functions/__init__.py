"""The public functions of the torch namespace, on Tensors."""
