"""The backend that programs are traced for: 'cpu', 'gpu' or 'tpu'.

Layers and the step compute some things in another way on another backend. All
ask here, so that a program can be made for a chip that this machine lacks.
"""

from collections.abc import Iterator
import contextlib
import contextvars

import jax

_CHOSEN: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'backend', default=None
)


def backend() -> str:
  """JAX's own, unless `traced_for` has chosen another."""
  return _CHOSEN.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(name: str) -> Iterator[None]:
  """Programs that are traced inside are for this backend."""
  token = _CHOSEN.set(name)
  jax.clear_caches()  # They hold what was traced for the other.
  try:
    yield
  finally:
    _CHOSEN.reset(token)
    jax.clear_caches()
