"""Variants: what is trained against what, one file each; and GAN losses.

A new variant is a function that returns a `Variant`: see `gan`.
"""

from qgan_jax.variants.base import Nets, Round, Variant
from qgan_jax.variants.gan import gan

__all__ = ['Nets', 'Round', 'Variant', 'gan']
