"""The runtimes of programs, and the process in which they run.

  python -m qgan_jax.artifacts.runtimes RUNTIME DESCRIPTOR

Runtimes are written in C++, and do not check all that they read: bytes that are
no program can crash them, and a program can run forever or fill the memory. So
they run in a separate process, which `program` starts and watches. The two
communicate through a socket, in bytes that are never unpickled.
"""

from collections.abc import Callable, Sequence
import json
from multiprocessing.connection import Connection
import os
import signal
import sys
from typing import Any, NamedTuple

import numpy as np

Run = Callable[[Sequence[np.ndarray]], np.ndarray]


class Loaded(NamedTuple):
  """A program that a runtime has loaded.

  Attributes:
    inputs: [name, shape without the batch, dtype] of each.
    output: shape of its output without the batch.
    run: inputs in their order → output.
  """

  inputs: list[list[Any]]
  output: list[Any]
  run: Run


def import_openvino() -> Any:
  """Imports OpenVINO, without the telemetry that it would send on import."""
  modules: dict[str, Any] = sys.modules
  modules.setdefault('openvino_telemetry', None)
  import openvino

  return openvino


def _openvino() -> Callable[[bytes], Loaded]:
  openvino = import_openvino()
  core = openvino.Core()

  def load(content: bytes) -> Loaded:
    model = core.read_model(content, b'')
    compiled = core.compile_model(
      # bfloat16, which some CPUs would take, is not what was trained.
      model,
      'CPU',
      {'INFERENCE_PRECISION_HINT': 'f32'},
    )

    def shape(port: Any) -> list[Any]:
      return [n.get_length() for n in list(port.get_partial_shape())[1:]]

    inputs = [
      [
        port.get_any_name(),
        shape(port),
        port.get_element_type().to_dtype().name,
      ]
      for port in model.inputs
    ]
    names = [name for name, _, _ in inputs]
    return Loaded(
      inputs,
      shape(model.outputs[0]),
      lambda arrays: compiled(dict(zip(names, arrays, strict=True)))[0],
    )

  return load


def _onnxruntime() -> Callable[[bytes], Loaded]:
  import onnxruntime

  dtypes = {'tensor(float)': 'float32', 'tensor(int64)': 'int64'}

  def load(content: bytes) -> Loaded:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors.
    session = onnxruntime.InferenceSession(
      content, options, providers=['CPUExecutionProvider']
    )
    inputs = [
      [port.name, port.shape[1:], dtypes.get(port.type, port.type)]
      for port in session.get_inputs()
    ]
    names = [name for name, _, _ in inputs]
    return Loaded(
      inputs,
      session.get_outputs()[0].shape[1:],
      lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[
        0
      ],
    )

  return load


def _jax() -> Callable[[bytes], Loaded]:
  import jax
  from jax import export

  from qgan_jax.artifacts.allowed_operations import check_operations, parsed

  jax.devices()

  def load(content: bytes) -> Loaded:
    try:
      program = export.deserialize(bytearray(content))
    except Exception:  # Whatever Python makes of bytes that are something else.
      raise ValueError('its program is none of jax.export') from None
    if len(program.out_avals) != 1:
      raise ValueError(f'it gives {len(program.out_avals)} arrays, not images')
    check_operations(parsed(program.mlir_module_serialized))
    call = jax.jit(program.call)
    return Loaded(
      [
        ['', [int(n) for n in x.shape[1:]], x.dtype.name]
        for x in program.in_avals
      ],
      [int(n) for n in program.out_avals[0].shape[1:]],
      lambda arrays: np.asarray(call(*arrays)),
    )

  return load


def _litert() -> Callable[[bytes], Loaded]:
  from ai_edge_litert.interpreter import Interpreter

  from qgan_jax.artifacts.tflite_file import check_operators

  def load(content: bytes) -> Loaded:
    check_operators(content)
    interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    inputs = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()

    def run(arrays: Sequence[np.ndarray]) -> np.ndarray:
      drawn = []
      # Its files are for one example at a time.
      for i in range(len(arrays[0])):
        for port, x in zip(inputs, arrays, strict=True):
          interpreter.set_tensor(port['index'], x[i : i + 1])
        interpreter.invoke()
        drawn.append(interpreter.get_tensor(output['index']))
      return np.concatenate(drawn)

    return Loaded(
      [
        [port['name'], port['shape'][1:].tolist(), port['dtype'].__name__]
        for port in inputs
      ],
      output['shape'][1:].tolist(),
      run,
    )

  return load


RUNTIMES = {
  'openvino': _openvino,
  'onnxruntime': _onnxruntime,
  'litert': _litert,
  'jax': _jax,
}


def serve(runtime: str, connection: Connection) -> None:
  """Answers requests until the other end closes the connection.

  First it sends b'+' when it is ready. Then it receives a program, and sends
  its inputs and output. After that it receives inputs, and sends the output,
  again and again. An answer is b'+' and its bytes, or b'-' and an error
  message.
  """
  load = RUNTIMES[runtime]()
  connection.send_bytes(b'+')
  try:
    inputs, output, run = load(connection.recv_bytes())
    answer = json.dumps([inputs, output]).encode()
  except Exception as error:  # Each runtime raises what it likes.
    connection.send_bytes(b'-' + _line(error))
    return
  connection.send_bytes(b'+' + answer)
  while True:
    try:
      arrays = [
        np.frombuffer(connection.recv_bytes(), dtype).reshape(-1, *shape)
        for _, shape, dtype in inputs
      ]
    except EOFError:
      return
    try:
      drawn = np.ascontiguousarray(run(arrays), np.float32)
      connection.send_bytes(b'+' + drawn.tobytes())
    except Exception as error:
      connection.send_bytes(b'-' + _line(error))


def _line(error: Exception) -> bytes:
  """The last line of what a runtime says, for a person."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[-1][:500].encode(errors='replace')


if __name__ == '__main__':
  # Nobody waits for an answer any longer.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  serve(sys.argv[1], Connection(int(sys.argv[2])))
