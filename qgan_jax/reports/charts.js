'use strict';
// Charts: how they look, how they are drawn, and how a keyboard reads them.

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
  // The longer names go to the vertical axis, where they are horizontal.
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

// ---- By keyboard

// Left and right go through a curve's points, up and down through the curves.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
  ArrowDown: [0, 1]};

/** A chart's points in rows, each in the form that Plotly.Fx.hover takes. */
function pointsOf({data: traces}) {
  if (traces[0]?.type === 'heatmap') {
    return traces[0].z.map((row, yval) => row
      .map((value, xval) => value === null ? null : {xval, yval})
      .filter(Boolean)).filter((row) => row.length);
  }
  // Sorted from left to right; traces without hover are skipped.
  return traces.map((trace, curveNumber) => trace.hoverinfo === 'skip' ? []
    : [...trace.x.keys()].filter((i) => trace.x[i] !== null && trace.y[i] !== null)
      .sort((i, j) => trace.x[i] - trace.x[j])
      .map((pointNumber) => [{curveNumber, pointNumber}]))
    .filter((row) => row.length);
}

function tell(place) {
  const lines = place.querySelectorAll('.hovertext tspan');
  const texts = lines.length ? lines : place.querySelectorAll('.hovertext');
  place.parentElement.querySelector('.said').textContent =
    [...texts].map((line) => line.textContent).join(', ');
}

function listenToKeys(place) {
  const at = [0, -1];
  place.addEventListener('keydown', (event) => {
    if (!place.data || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Escape') {
      Plotly.Fx.unhover(place);
      return;
    }
    const move = ARROWS[event.key];
    const rows = move ? pointsOf(place) : [];
    if (!rows.length) return;
    event.preventDefault();
    const within = (value, length) => Math.max(0, Math.min(value, length - 1));
    at[0] = within(at[0] + (at[1] < 0 ? 0 : move[1]), rows.length);
    at[1] = within(at[1] < 0 ? 0 : at[1] + move[0], rows[at[0]].length);
    Plotly.Fx.hover(place, rows[at[0]][at[1]]);
    // Plotly hovers at most every 50 ms, and Fx.hover sends no event.
    setTimeout(tell, 60, place);
  });
  place.addEventListener('blur', () => place.data && Plotly.Fx.unhover(place));
}
