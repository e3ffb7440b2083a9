"""Compiles functions that are called only a few times."""

from collections.abc import Callable
from typing import Any

import jax


def compile_quickly(function: Callable[..., Any]) -> Callable[..., Any]:
  """`jax.jit` without XLA's optimizations, if the backend is a CPU.

  On a CPU, optimizing takes longer than a few calls can gain from it.

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
