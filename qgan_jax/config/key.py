"""What is said of a key of a config, and of keys that belong together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from qgan_jax.config.kinds import Kind


class Key(NamedTuple):
  """One key.

  Attributes:
    path: where it lies in the config, with dots.
    kind: what it may hold.
    default: its value where nothing else is said; None for a key that is then
      unset, and one of the next three says what that means.
    help: what it is, in a line of Markdown.
    by_network: the default of each network, where networks differ.
    follows: what `resolve` sets an unset key to, in Markdown.
    unset: what it means that a resolved config has no value here, in words;
      '' for a key that has to have one.
    name: its short name in config strings; None for the last part of its
      path, '' for none.
    broader: short names of keys that set this one, too, unless it is given;
      the broadest first.
    quantizer: path of the quantizer that decides which bits it may hold.
    only_with: values of other keys, by their path, with which alone it does
      something; of a data set in a folder, 'folder'.
    is_attribute: whether networks have to have it, which not all families do.
  """

  path: str
  kind: Kind
  default: Any
  help: str
  by_network: Mapping[str, Any] = {}
  follows: str = ''
  unset: str = ''
  name: str | None = None
  broader: tuple[str, ...] = ()
  quantizer: str = ''
  only_with: Mapping[str, tuple[str, ...]] = {}
  is_attribute: bool = False

  @property
  def short(self) -> str:
    """The key's short name, or '' if it has none."""
    return self.path.rpartition('.')[2] if self.name is None else self.name


class Group(NamedTuple):
  """Keys that belong together.

  Attributes:
    title: of the group.
    about: what is true of all of them, in Markdown; may be ''.
    keys: in the order in which the names of runs mention them. To change the
      order of keys, or of groups, is to give other names to the same runs.
  """

  title: str
  about: str
  keys: tuple[Key, ...]
