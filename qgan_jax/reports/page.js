'use strict';
// The page's own script: inflates data and library, draws what comes into
// view, sorts tables, saves pictures, and follows a running sweep.

const COLOURS = {
  // Okabe and Ito; lighter ones on dark ground.
  light: ['#0072b2', '#d55e00', '#009e73', '#b1508d', '#b37d00', '#3a9bd1',
    '#555555', '#8a5a2b'],
  dark: ['#5ab4e6', '#ff8c42', '#2fc79a', '#e39ac4', '#e6b422', '#9ad5f5',
    '#bbbbbb', '#c99b6d'],
};
// Viridis without its ends, which vanish on light or on dark ground.
const SCALE = {
  light: ['#440154', '#414487', '#2a788e', '#22a884', '#7ad151'],
  dark: ['#7e6bc4', '#3b9bb3', '#22b88a', '#8fd744', '#fde725'],
};
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

function mix(a, b, t) {
  const part = (i) => {
    const [x, y] = [a, b].map((c) => parseInt(c.slice(i, i + 2), 16));
    return Math.round(x + (y - x) * t).toString(16).padStart(2, '0');
  };
  return '#' + part(1) + part(3) + part(5);
}

function settingColour(index, theme) {
  const stops = SCALE[theme];
  const at = data.settings.length < 2
    ? 1.5 : (index / (data.settings.length - 1)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[low], stops[low + 1], at - low);
}

// ---- Charts

function ink(theme) {
  return theme === 'dark'
    ? {text: '#e8e8e6', grid: '#3a3d42', paper: '#1b1d21', soft: '#50545b'}
    : {text: '#1d1f23', grid: '#e3e3e0', paper: '#ffffff', soft: '#d5d5d0'};
}

function themed(chart, theme, width) {
  const {data: traces, layout} = structuredClone(chart);
  const colours = ink(theme);
  for (const trace of traces) {
    const meta = trace.meta || {};
    let colour = colours.soft;
    if (meta.series !== undefined) {
      colour = COLOURS[theme][meta.series % COLOURS[theme].length];
    } else if (meta.setting !== undefined) {
      colour = settingColour(meta.setting, theme);
    }
    if (trace.type === 'heatmap') {
      trace.colorscale = SCALE[theme].map((c, i, all) =>
        [i / (all.length - 1), c]);
      continue;
    }
    trace.line = {...trace.line, color: colour};
    trace.marker = {...trace.marker, color: colour};
    if (trace.error_y) trace.error_y.color = colour;
    trace.textfont = {color: colours.text, size: 11};
  }
  for (const shape of layout.shapes || []) {
    if (shape.name === 'float-range') shape.fillcolor = colours.text;
    shape.line = {...shape.line, color: colours.text};
    if (shape.label) shape.label.font = {color: colours.text, size: 11};
  }
  const axis = {
    gridcolor: colours.grid, linecolor: colours.soft, zeroline: false,
    automargin: true, showline: true, tickcolor: colours.soft, ticks: 'outside',
  };
  const titled = (own) => own && own.title
    ? {title: {...own.title, font: {size: 12}, standoff: 8}} : {};
  return [traces, {
    ...layout,
    xaxis: {...axis, ...layout.xaxis, ...titled(layout.xaxis)},
    yaxis: {...axis, ...layout.yaxis, ...titled(layout.yaxis)},
    paper_bgcolor: colours.paper,
    plot_bgcolor: colours.paper,
    font: {family: 'system-ui, sans-serif', size: 12, color: colours.text},
    margin: {l: 8, r: 14, t: 14, b: 8},
    hovermode: 'closest',
    dragmode: coarse ? false : 'zoom',
    showlegend: traces.filter((t) => t.meta?.role === 'means').length > 1,
    legend: {orientation: 'h', y: width && width < 500 ? -0.3 : -0.22,
      yanchor: 'top', x: 0},
  }];
}

function range(traces, spread) {
  const values = traces.flatMap((t) => t.y).filter((v) => v !== null);
  const low = Math.min(...values.slice(0, 1e5));
  const high = Math.max(...values.slice(0, 1e5));
  return low > 0 && high / low > spread ? 'log' : 'linear';
}

function curvesChart(panel, key) {
  const traces = [];
  const name = Object.fromEntries(panel.metrics)[key];
  (data.curves[key] || []).forEach((points, i) => {
    const run = data.runs[i];
    if (!points || hidden.has(run.setting)) return;
    traces.push({
      type: 'scatter',
      mode: points[0].length > 1 ? 'lines' : 'markers',
      x: points[0], y: points[1], name: run.name, connectgaps: false,
      line: {width: data.runs.length > 30 ? 1 : 1.6},
      meta: {setting: run.setting},
      hovertemplate: `${escaped(data.settings[run.setting])}, seed ${run.seed}`
        + '<br>step %{x:,}: %{y:.4g}<extra></extra>',
    });
  });
  const type = range(traces, 50);
  const title = (panel.layered ? panel.title + '<br>' : '') + name
    + (type === 'log' ? ', log scale' : '');
  return {data: traces, layout: {
    xaxis: {title: {text: 'training step'}},
    yaxis: {title: {text: title}, type, ...(type === 'log' ? {dtick: 1} : {})},
  }};
}

function heatChart(panel) {
  let {x, y, z} = panel.heat;
  // Long names are read best from left to right.
  const longest = (names) => Math.max(...names.map((name) => name.length));
  if (longest(x) > longest(y)) {
    [x, y, z] = [y, x, x.map((_, i) => z.map((row) => row[i]))];
  }
  const few = z.flat().length <= 150;
  return {data: [{
    type: 'heatmap', x, y, z, xgap: 2, ygap: 2,
    texttemplate: few ? '%{z:.3g}' : undefined,
    hovertemplate: '%{y}<br>%{x}<br>%{z:.4g}<extra></extra>',
    colorbar: {thickness: 10, outlinewidth: 0},
  }], layout: {
    height: Math.max(290, 80 + 19 * y.length),
    xaxis: {type: 'category'},
    yaxis: {type: 'category', autorange: 'reversed'},
  }};
}

function escaped(text) {
  return text.replace(/[&<>%]/g, (c) => `&#${c.charCodeAt()};`);
}

function chartOf(figure) {
  const {chart, panel, heat} = figure.dataset;
  if (chart) return data.charts[chart];
  if (heat) return heatChart(data.panels[heat]);
  const select = figure.querySelector('select');
  const own = data.panels[panel];
  return curvesChart(own, select ? select.value : own.metrics[0][0]);
}

function draw(figure) {
  const place = figure.querySelector('.plot');
  const theme = dark.matches ? 'dark' : 'light';
  const [traces, layout] = themed(chartOf(figure), theme, place.clientWidth);
  drawn.add(figure);
  if (layout.height) place.style.height = `${layout.height}px`;
  return Plotly.react(place, traces, layout,
    {displayModeBar: false, responsive: true}).then(() => {
    figure.dataset.drawn = theme;
  });
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
  // As for paper: light, three pixels for one.
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
  // Other trials may have brought other choices.
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
