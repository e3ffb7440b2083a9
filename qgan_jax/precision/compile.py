"""Compilation for functions that run a few times in all."""

from collections.abc import Callable
from typing import Any

import jax


def compile_quickly(function: Callable[..., Any]) -> Callable[..., Any]:
  """`jax.jit` that leaves XLA's optimizations out where that is quicker.

  On a CPU they take longer than a few runs can win back.

  Args:
    function: of pytrees of arrays.
  """
  return jax.jit(
    function,
    # Not when this file is imported: it would start the backend.
    compiler_options={'xla_backend_optimization_level': 0}
    if jax.default_backend() == 'cpu'
    else None,
  )
