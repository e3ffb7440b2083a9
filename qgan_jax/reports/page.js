'use strict';
// The page's own script: inflates data and library, draws what comes into
// view, sorts tables, saves pictures, and follows a running sweep.

const dark = matchMedia('(prefers-color-scheme: dark)');
const coarse = matchMedia('(pointer: coarse)').matches;
const drawn = new Set();
const hidden = new Set();
let data = null;
let watcher = null;

async function inflated(id) {
  const bytes = Uint8Array.from(
    atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt());
  const stream = new Blob([bytes]).stream()
    .pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).text();
}

// ---- Saving

function save(name, content, type) {
  const link = document.createElement('a');
  const url = content.startsWith('data:')
    ? content : URL.createObjectURL(new Blob([content], {type}));
  link.href = url;
  link.download = name;
  link.click();
  if (url.startsWith('blob:')) setTimeout(() => URL.revokeObjectURL(url), 1e4);
}

function csv(rows) {
  return rows.map((row) => row.map((cell) => {
    const text = cell === null || cell === undefined ? '' : String(cell);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(',')).join('\n') + '\n';
}

function chartRows(chart) {
  const axis = (name) => (chart.layout[name]?.title?.text) || name[0];
  const rows = [['series', 'what', axis('xaxis'), axis('yaxis'), 'low', 'high']];
  for (const t of chart.data) {
    if (t.type === 'heatmap') {
      t.y.forEach((y, i) => t.x.forEach((x, j) =>
        rows.push([y, x, '', t.z[i][j], '', ''])));
      continue;
    }
    const owner = chart.data.find((o) =>
      o.meta?.series === t.meta?.series && o.meta?.role === 'means');
    t.x.forEach((x, i) => rows.push([
      owner ? owner.name : t.name, t.meta?.role || 'curve', x, t.y[i],
      t.error_y ? t.y[i] - t.error_y.arrayminus[i] : '',
      t.error_y ? t.y[i] + t.error_y.array[i] : '']));
  }
  return rows;
}

async function saveChart(figure, format) {
  const chart = chartOf(figure);
  const name = figure.dataset.name;
  if (format === 'csv') return save(`${name}.csv`, csv(chartRows(chart)), 'text/csv');
  // For paper: the light theme, at three times the resolution.
  const [traces, layout] = themed(chart, 'light');
  const url = await Plotly.toImage({data: traces, layout},
    {format, width: 720, height: layout.height || 440, scale: format === 'png' ? 3 : 1});
  save(`${name}.${format}`, url);
}

function tableRows(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) =>
    cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim()));
}

// ---- Tables

function sortBy(header, descending) {
  const table = header.closest('table');
  for (const other of header.parentElement.cells) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  const key = (row) => {
    const cell = row.cells[header.cellIndex];
    const text = cell.dataset.v ?? cell.textContent.trim();
    return text === '' || Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) => {
    // What is missing stays at the end.
    if (a === '' || b === '') return (a === '') - (b === '');
    const order = typeof a === 'number' && typeof b === 'number'
      ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
    return descending ? -order : order;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
}

// ---- Putting it together

function showSeed() {
  const select = document.getElementById('seed');
  if (!select) return;
  for (const strip of document.querySelectorAll('.strip')) {
    strip.hidden = select.value !== '' && strip.dataset.seed !== select.value;
  }
}

function showCheckpoint() {
  const chosen = document.querySelector('input[name=checkpoint]:checked');
  document.body.dataset.checkpoint = chosen ? chosen.value : 'best';
}

function makeLegend() {
  for (const place of document.querySelectorAll('.legend')) {
    place.replaceChildren(...data.settings.map((name, i) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.setAttribute('aria-pressed', String(!hidden.has(i)));
      const line = document.createElement('i');
      line.style.background = settingColour(i, dark.matches ? 'dark' : 'light');
      button.append(line, name);
      button.addEventListener('click', () => {
        if (!hidden.delete(i)) hidden.add(i);
        makeLegend();
        for (const figure of drawn) if (figure.dataset.panel) draw(figure);
        document.querySelectorAll('.legend button')[i].focus();
      });
      return button;
    }));
  }
}

function connect() {
  for (const button of document.querySelectorAll('th button')) {
    const header = button.parentElement;
    button.addEventListener('click', () => sortBy(header,
      header.getAttribute('aria-sort') === 'ascending'));
  }
  for (const button of document.querySelectorAll('[data-save]')) {
    const figure = button.closest('figure');
    button.addEventListener('click', () => button.dataset.save === 'table'
      ? save(`${button.dataset.name}.csv`,
        csv(tableRows(document.getElementById(button.dataset.table))), 'text/csv')
      : saveChart(figure, button.dataset.save));
  }
  for (const button of document.querySelectorAll('[data-copy]')) {
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = 'copied';
    });
  }
  document.querySelectorAll('.plot').forEach(listenToKeys);
  for (const select of document.querySelectorAll('figure select')) {
    select.addEventListener('change', () => draw(select.closest('figure')));
  }
  document.getElementById('seed')?.addEventListener('change', showSeed);
  for (const radio of document.querySelectorAll('input[name=checkpoint]')) {
    radio.addEventListener('change', showCheckpoint);
  }
  showSeed();
  showCheckpoint();
  drawn.clear();
  if (!window.Plotly) return;
  makeLegend();
  watcher?.disconnect();
  watcher = new IntersectionObserver((entries) => {
    for (const {isIntersecting, target} of entries) {
      if (isIntersecting && !drawn.has(target)) draw(target);
    }
  }, {rootMargin: '400px'});
  document.querySelectorAll('figure.chart').forEach((f) => watcher.observe(f));
}

// ---- Following a sweep

function choices() {
  return [...document.querySelectorAll('select, input[name=checkpoint], details')]
    .map((e) => e.matches('select') ? e.value : e.checked ?? e.open);
}

async function renew() {
  const sorts = [...document.querySelectorAll('th[aria-sort]')].map((h) => [
    h.closest('table').id, h.cellIndex, h.getAttribute('aria-sort')]);
  const [before, scroll] = [choices(), scrollY];
  const text = await (await fetch('page')).text();
  const fresh = new DOMParser().parseFromString(text, 'text/html');
  document.querySelector('main').replaceWith(fresh.querySelector('main'));
  document.getElementById('data').textContent =
    fresh.getElementById('data').textContent;
  data = JSON.parse(await inflated('data'));
  const now = [...document.querySelectorAll(
    'select, input[name=checkpoint], details')];
  // New trials may have added choices; then the old ones do not fit.
  if (now.length === before.length) {
    now.forEach((e, i) => {
      if (e.matches('select')) {
        if ([...e.options].some((o) => o.value === before[i])) e.value = before[i];
      } else if (e.matches('details')) e.open = before[i];
      else e.checked = before[i];
    });
  }
  connect();
  for (const [id, index, order] of sorts) {
    const header = document.getElementById(id)?.rows[0].cells[index];
    if (header) sortBy(header, order === 'descending');
  }
  scrollTo({top: scroll, behavior: 'instant'});
}

async function follow(known) {
  const live = document.getElementById('live');
  try {
    const version = await (await fetch('version')).text();
    if (version !== known) await renew();
    live.textContent = 'live';
    known = version;
  } catch {
    live.textContent = 'the server has ended; this is what it showed last';
  }
  setTimeout(follow, 2000, known);
}

async function start() {
  try {
    data = JSON.parse(await inflated('data'));
    const library = document.createElement('script');
    library.textContent = await inflated('library');
    document.head.append(library);
  } catch (error) {
    document.getElementById('trouble').hidden = false;
    throw error;
  } finally {
    connect();
  }
  dark.addEventListener('change', () => {
    makeLegend();
    drawn.forEach(draw);
  });
  if (document.body.dataset.version) follow(document.body.dataset.version);
}

start();
