"""Quantized generative adversarial networks in JAX and Flax."""
