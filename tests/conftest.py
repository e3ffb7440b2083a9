import os

# Unset, JAX would try to reach accelerators that a test must not depend on.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
