"""Launchers: commands on this machine, on Ray or on Slurm, and their care.

A launcher takes a `Task` and gives a `Job`; it knows nothing of training. The
supervisor retries, stops and reports, whatever the launcher.
"""

from qgan_jax.launchers.base import Job, Launcher, Task
from qgan_jax.launchers.progress import Progress, Reader

__all__ = ['Job', 'Launcher', 'Progress', 'Reader', 'Task']
