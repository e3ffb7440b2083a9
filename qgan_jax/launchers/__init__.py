"""Launchers run commands on this machine, on Ray or on Slurm.

A launcher takes a `Task` and returns a `Job`; it knows nothing of training. The
supervisor retries, stops and reports tasks, with any launcher.
"""

from qgan_jax.launchers.base import Job, Launcher, Task
from qgan_jax.launchers.progress import Progress, Reader

__all__ = ['Job', 'Launcher', 'Progress', 'Reader', 'Task']
