"""A report of some folders: as files, or as a page that follows them."""

from collections.abc import Sequence
import functools
import os
from pathlib import Path
from typing import Any

from qgan_jax.artifacts.files import replacing
from qgan_jax.errors import UserError
from qgan_jax.reports import charts, figures, serve, tables
from qgan_jax.reports.page import first, render, with_scores_of
from qgan_jax.reports.read import fingerprint, read_runs, Run

Folders = Sequence[str | os.PathLike[str]]


class Report:
  """What a command line asks for."""

  def __init__(self, folders: Folders, *, within: float, command: str):
    """Reads nothing yet.

    Args:
      folders: runs, sweeps, or folders that hold such.
      within: how much worse than float counts as close; 0.1 is 10 %.
      command: the command line, shown on the page.
    """
    self._folders = folders
    names = [Path(folder).resolve().name for folder in folders]
    self._render: Any = functools.partial(
      render, title=', '.join(names), tolerance=within, command=command
    )

  def save(self, out: Path | None, *, files: bool) -> list[str]:
    """Writes the page, and what goes beside it.

    Args:
      out: path of the page; None for report.html, in the folder if only one is
        given, and otherwise in the working directory.
      files: writes tables and figures, too, to a folder named for the page.

    Returns:
      What was written, in lines for a person.

    Raises:
      UserError: there is nothing to show, or no place for it.
    """
    if out is None:
      alone = len(self._folders) == 1
      out = Path(self._folders[0] if alone else '') / 'report.html'
    runs = read_runs(self._folders)
    page = self._render(runs).encode()
    with replacing(out) as file:
      file.write(page)
    lines = [run.message for run in runs if run.state == 'damaged']
    lines.append(f'{out}: {len(runs)} trials, {len(page) / 1e6:.1f} MB')
    if files:
      beside = out.with_name(f'{out.stem}-files')
      try:
        beside.mkdir(exist_ok=True)
        save_files(runs, beside)
      except OSError as error:
        raise UserError(
          f'cannot write {beside}: {error.strerror or error}; give another '
          '--out, or --nofiles'
        ) from None
      lines.append(f'{beside}/: tables as CSV and Parquet, figures')
    return lines

  def pages(self) -> serve.Pages:
    """Pages that follow what the folders hold."""

    def show(version: str, library: bool) -> str:
      runs = read_runs(self._folders)
      return self._render(runs, version=version, library=library)

    read_runs(self._folders)  # Raises now what a request would raise.
    return serve.Pages(lambda: fingerprint(self._folders), show)


def save_files(runs: Sequence[Run], folder: Path) -> None:
  """Writes all tables and the main charts into a folder.

  `trials`, `settings-best`, `settings-last` and `curves` as CSV and Parquet;
  the figures of `figures.save_figures`, with a number for each further set of
  trials that cannot be compared with the first.
  """
  trials = tables.trials_table(runs)
  frames = {'trials': trials, 'curves': tables.curves_table(runs)}
  groups = tables.comparisons_of(trials)
  for checkpoint in tables.CHECKPOINTS:
    for i, (name, group) in enumerate(groups.items()):
      settings = tables.settings_table(group, checkpoint)
      suffix = f'-{i + 1}' if i else ''
      settings.insert(0, 'comparison', name)
      frames[f'settings-{checkpoint}{suffix}'] = settings
      if checkpoint == 'best' and len(settings):
        score = charts.TITLES[first(group['score_name'])]
        figures.save_figures(
          settings,
          with_scores_of(group, checkpoint),
          folder,
          score=score,
          suffix=suffix,
        )
  tables.save_tables(frames, folder)
