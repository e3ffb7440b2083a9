"""What a compiled program consists of, read from its text.

XLA writes an optimized program as text: a computation is a block of lines, an
instruction a line. Instructions of the entry, and of loops and branches that it
calls, are what a chip is handed one by one, here called kernels; a fusion is a
kernel whose own computation holds several instructions.
"""

import collections
from collections.abc import Iterator, Mapping
import dataclasses
import math
import re
from typing import NamedTuple

COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
)
# They name or view what is there, or are the second half of a pair.
_FREE = (
  'bitcast',
  'constant',
  'get-tuple-element',
  'parameter',
  'partition-id',
  'replica-id',
  'tuple',
  'while',
  'conditional',
  'call',
)
# They read no more of an operand than they give: a data set's batch.
_PICKING = ('gather', 'dynamic-slice')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_LINE = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
_SHAPE = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]')
_OPERAND = re.compile(r'%([\w.\-]+)')
# What runs as part of the instruction, and what runs as kernels of their own.
_FUSED = re.compile(r'\bcalls=%([\w.\-]+)')
_RUN = re.compile(
  r'\b(?:body|true_computation|false_computation|to_apply)=%([\w.\-]+)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Instruction(NamedTuple):
  """A line of a program.

  Attributes:
    opcode: such as 'fusion' or 'all-reduce'.
    results: bytes of what it makes.
    operands: names of what it reads.
    rest: the line behind the operands: attributes.
  """

  opcode: str
  results: int
  operands: tuple[str, ...]
  rest: str


@dataclasses.dataclass(frozen=True)
class Program:
  """What is counted in a program.

  Attributes:
    kernels: how many there are, by kind; a fusion is of the kind of what it
      does: see `_kind`.
    bytes: read and written by them, by kind.
    cycles: that the compiler expects of them, by kind; all 0 where it does not
      say.
    operations: instructions by opcode, those inside fusions included.
    made: bytes of all that they write.
    reduced: bytes that collectives hand to the chips' network.
  """

  kernels: Mapping[str, int]
  bytes: Mapping[str, int]
  cycles: Mapping[str, int]
  operations: Mapping[str, int]
  made: int
  reduced: int

  @property
  def collectives(self) -> int:
    """How many collectives a call makes."""
    return sum(self.kernels.get(name, 0) for name in COLLECTIVES)


def read(text: str, steps: int = 1) -> Program:
  """Reads the text of an optimized program.

  Args:
    text: `Compiled.as_text()`.
    steps: that a call takes. A loop of so many turns is counted once, so that
      all numbers are of a step, with what a call does once besides.
  """
  entry, computations = _computations(text)
  kernels: collections.Counter[str] = collections.Counter()
  moved: collections.Counter[str] = collections.Counter()
  cycles: collections.Counter[str] = collections.Counter()
  made = reduced = 0
  for name, times in _called(entry, computations, steps):
    own = computations[name]
    for line in own.values():
      opcode = line.opcode.removesuffix('-start')
      if opcode in _FREE or opcode.endswith('-done'):
        continue
      kind = _kind(opcode, line, computations)
      kernels[kind] += times
      made += times * line.results
      read = [own[x].results for x in line.operands if x in own]
      if kind in _PICKING:
        read = [min(size, line.results) for size in read]
      moved[kind] += times * (line.results + sum(read))
      found = _CYCLES.search(line.rest)
      cycles[kind] += times * int(found[1]) if found else 0
      if opcode in COLLECTIVES:
        reduced += times * sum(
          own[x].results for x in line.operands if x in own
        )
  operations = collections.Counter(
    line.opcode for own in computations.values() for line in own.values()
  )
  return Program(kernels, moved, cycles, operations, made, reduced)


def _computations(text: str) -> tuple[str, dict[str, dict[str, Instruction]]]:
  """(the entry's name, instructions by name by computation)."""
  entry, own = '', {}
  computations: dict[str, dict[str, Instruction]] = {}
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      own = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
    elif match := _LINE.match(line):
      own[match[1]] = _instruction(match[2])
  return entry, computations


def _instruction(text: str) -> Instruction:
  """Reads what is behind the equals sign: TYPE OPCODE(OPERANDS), ATTRIBUTES."""
  end = _closed(text, 0) if text.startswith('(') else text.index(' ')
  start = text.index('(', end)
  after = _closed(text, start)
  return Instruction(
    opcode=text[end:start].strip(),
    results=_bytes(text[:end]),
    operands=tuple(_OPERAND.findall(text[start:after])),
    rest=text[after:],
  )


def _closed(text: str, start: int) -> int:
  """Where the parenthesis that opens at `start` has closed."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i + 1
  raise ValueError(f'no end of a parenthesis in {text[:80]!r}')


def _bytes(shapes: str) -> int:
  """Bytes of all arrays of a type, such as `(f32[2,3]{1,0}, pred[])`."""
  total = 0
  for dtype, dims in _SHAPE.findall(shapes):
    bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])  # type: ignore[index]
    total += math.prod(int(d) for d in dims.split(',') if d) * bits // 8
  return total


def _called(
  name: str,
  computations: Mapping[str, Mapping[str, Instruction]],
  steps: int,
) -> Iterator[tuple[str, int]]:
  """A computation and those that it runs as kernels, with how often each."""
  yield name, 1
  for line in computations[name].values():
    if line.opcode not in ('while', 'conditional', 'call'):
      continue
    found = _TRIPS.search(line.rest)
    trips = int(found[1]) if found and int(found[1]) != steps else 1
    inner = _RUN.findall(line.rest)
    for branches in _BRANCHES.findall(line.rest):
      inner += _OPERAND.findall(branches)
    for other in inner:
      for inside, times in _called(other, computations, steps):
        yield inside, times * trips


# The first of these that a fusion holds says what kind of kernel it is.
_TELLING = (
  'convolution',
  'dot',
  'custom-call',
  'sort',
  'scatter',
  'gather',
  'reduce-window',
  'reduce',
  'transpose',
  'round-nearest-even',
  'rng-bit-generator',
  'convert',
)


def _kind(
  opcode: str,
  line: Instruction,
  computations: Mapping[str, Mapping[str, Instruction]],
) -> str:
  """The kind of a kernel: its opcode, or what is most telling in a fusion."""
  if opcode != 'fusion':
    return opcode
  held = set(_held(line, computations))
  return next((name for name in _TELLING if name in held), 'elementwise')


def _held(
  line: Instruction, computations: Mapping[str, Mapping[str, Instruction]]
) -> Iterator[str]:
  for name in _FUSED.findall(line.rest):
    for inner in computations[name].values():
      yield inner.opcode
      yield from _held(inner, computations)
