#!/usr/bin/env bash
# One run over all hosts of a TPU slice, by jax.distributed.
#
#   launch/gcp/tpu-slice.sh NAME ZONE --config=experiments/mnist.py:bits=8 …
#
# The slice is there (gcloud compute tpus tpu-vm create), with the repository
# and its environment in ~/qgan_jax on every host, and a shared folder at
# /shared. The same command resumes.
set -euo pipefail

name=${1:?'the name of the slice'}
zone=${2:?'its zone'}
shift 2
arguments=$(printf ' %q' "$@")
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  cd ~/qgan_jax && . .venv/bin/activate &&
  exec python -m qgan_jax.main --distributed$arguments"
