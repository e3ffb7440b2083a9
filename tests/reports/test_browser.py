"""The page in a real browser: Chromium, without a window."""

import csv
import shutil
import threading
import time

from fake_runs import config_of, make_run, make_sweep, write_sweep
from PIL import Image
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from qgan_jax.reports import serve
from qgan_jax.reports.write import Report

pytestmark = pytest.mark.browser
FLAGS = (
  'headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
  'disable-background-networking', 'disable-component-update', 'disable-sync',
  'disable-dev-shm-usage', 'hide-scrollbars',
)  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which('chromium')
  for flag in FLAGS:
    options.add_argument(f'--{flag}')
  options.add_argument(f'--user-data-dir={tmp_path_factory.mktemp("profile")}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  driver = webdriver.Chrome(options=options, service=service)
  driver.set_script_timeout(30)
  yield driver
  driver.quit()


@pytest.fixture
def browser(chromium):
  look(chromium, DESKTOP)
  yield chromium
  # Nothing that a test does may be an error to the page.
  assert chromium.get_log('browser') == []


def look(driver, size, scheme='light'):
  width, height = size
  driver.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {
      'width': width,
      'height': height,
      'deviceScaleFactor': 1,
      'mobile': size == PHONE,
    },
  )
  driver.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
  )


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """A sweep with all that can befall it: its page's address."""
  folder = make_sweep(tmp_path_factory.mktemp('runs') / 's', seeds=(0, 1))
  make_run(folder / 'no score', 8, 5, score=None)
  return address_of(folder)


def address_of(folder):
  out = folder / 'report.html'
  Report([folder], within=0.1, command='x').save(out, files=False)
  return f'file://{out}'


def wait(driver, condition, seconds=20):
  return WebDriverWait(driver, seconds, 0.05).until(lambda _: condition())


def show(driver, selector):
  """Brings a chart into view and waits until it is drawn."""
  element = driver.find_element(By.CSS_SELECTOR, selector)
  driver.execute_script('arguments[0].scrollIntoView()', element)
  wait(driver, lambda: element.get_attribute('data-drawn'))
  return element


def shown_charts(driver):
  charts = driver.find_elements(By.CSS_SELECTOR, 'figure.chart')
  return [chart for chart in charts if chart.is_displayed()]


def test_it_opens_and_draws_all_charts_without_a_network(browser, page):
  browser.get(page)
  charts = shown_charts(browser)
  # Scores 2, diversity 4, training 2, stability 2, layers 2 × 2, speed 1.
  assert len(charts) == 15
  for chart in charts:
    browser.execute_script('arguments[0].scrollIntoView()', chart)
    wait(browser, lambda chart=chart: chart.get_attribute('data-drawn'))
    drawn = chart.find_elements(
      By.CSS_SELECTOR, '.scatterlayer .trace, .heatmaplayer image'
    )
    assert drawn, chart.get_attribute('data-name')
  fetched = browser.execute_script(
    "return performance.getEntriesByType('resource').map(e => e.name)"
  )
  assert [name for name in fetched if not name.startswith('data:')] == []


def test_hovering_tells_values(browser, page):
  browser.get(page)
  chart = show(browser, '[data-chart="score-by-bits-best-0"]')
  point = chart.find_elements(By.CSS_SELECTOR, '.trace:last-child .point')[2]
  ActionChains(browser).move_to_element(point).perform()
  said = wait(
    browser,
    lambda: [
      text.text
      for text in chart.find_elements(By.CSS_SELECTOR, '.hovertext')
      if text.text
    ],
  )
  assert '4 bits, mean of 2' in said[0]
  assert '2.13 (2.12 to 2.13)' in said[0]
  assert '154 kB' in said[0]


def test_arrow_keys_tell_values(browser, page):
  browser.get(page)
  chart = show(browser, '[data-chart="score-by-bits-best-0"]')
  plot = chart.find_element(By.CLASS_NAME, 'plot')
  said = chart.find_element(By.CLASS_NAME, 'said')

  def told():
    return said.get_attribute('textContent')

  plot.send_keys(Keys.ARROW_RIGHT)
  assert browser.switch_to.active_element == plot
  wait(browser, lambda: 'seed 0' in told())
  first = told()
  plot.send_keys(Keys.ARROW_RIGHT)
  wait(browser, lambda: told() != first)
  # Below the trials are the means, from the fewest bits to the most.
  plot.send_keys(Keys.ARROW_DOWN)
  wait(browser, lambda: 'mean of 2' in told())
  assert chart.find_elements(By.CSS_SELECTOR, '.hovertext')
  plot.send_keys(Keys.ESCAPE)
  wait(
    browser,
    lambda: not chart.find_elements(By.CSS_SELECTOR, '.hovertext'),
  )
  # Each point of a heat map, too.
  chart = show(browser, 'figure[data-heat]')
  plot = chart.find_element(By.CLASS_NAME, 'plot')
  said = chart.find_element(By.CLASS_NAME, 'said')
  plot.send_keys(Keys.ARROW_RIGHT)
  wait(browser, told)


def test_charts_respond(browser, page):
  browser.get(page)
  chart = show(browser, 'figure[data-name="losses"]')

  def lines():
    return len(chart.find_elements(By.CSS_SELECTOR, '.scatterlayer .trace'))

  assert lines() == 11
  button = browser.find_element(By.CSS_SELECTOR, '#training .legend button')
  button.send_keys(Keys.ENTER)
  wait(browser, lambda: lines() == 9)
  button = browser.find_element(By.CSS_SELECTOR, '#training .legend button')
  assert button.get_attribute('aria-pressed') == 'false'
  assert browser.switch_to.active_element == button
  Select(chart.find_element(By.TAG_NAME, 'select')).select_by_index(1)
  wait(browser, lambda: 'loss of G' in chart.text)

  # Dragging over a part of a chart shows that part.
  plot = chart.find_element(By.CSS_SELECTOR, '.nsewdrag')
  extent = "return arguments[0].querySelector('.plot')._fullLayout.xaxis.range"
  low, high = browser.execute_script(extent, chart)
  ActionChains(browser).move_to_element(plot).click_and_hold().move_by_offset(
    80, 60
  ).release().perform()
  wait(browser, lambda: browser.execute_script(extent, chart)[0] > low + 20)
  assert browser.execute_script(extent, chart)[1] < high


def test_the_last_step_can_be_shown_instead(browser, page):
  browser.get(page)
  browser.find_element(By.CSS_SELECTOR, 'input[value=last]').click()
  chart = show(browser, '[data-chart="score-by-bits-last-0"]')
  assert chart.is_displayed()
  best = browser.find_element(By.CSS_SELECTOR, '.best')
  assert not best.is_displayed()


def column(table, index):
  rows = table.find_elements(By.CSS_SELECTOR, 'tbody tr')
  return [row.find_elements(By.XPATH, '*')[index].text for row in rows]


def test_tables_sort_by_mouse_and_keyboard(browser, page):
  browser.get(page)
  table = browser.find_element(By.ID, 'table-trials')
  headers = table.find_elements(By.CSS_SELECTOR, 'thead th')
  best = [header.text.strip(' ↕↑↓') for header in headers].index('best')
  assert all(h.get_attribute('aria-sort') is None for h in headers)
  button = headers[best].find_element(By.TAG_NAME, 'button')
  browser.execute_script('arguments[0].scrollIntoView()', table)
  button.click()
  assert headers[best].get_attribute('aria-sort') == 'ascending'
  *numbers, missing = column(table, best)
  assert missing == '–'
  assert [float(x) for x in numbers] == sorted(float(x) for x in numbers)
  button.send_keys(Keys.SPACE)
  assert headers[best].get_attribute('aria-sort') == 'descending'
  assert column(table, best) == [*reversed(numbers), '–']
  headers[0].find_element(By.TAG_NAME, 'button').send_keys(Keys.ENTER)
  assert headers[best].get_attribute('aria-sort') is None
  # As people count: bits=2 before bits=32.
  assert column(table, 0)[2:4] == ['bits=2,seed=0', 'bits=2,seed=1']


def test_it_follows_the_dark(browser, page):
  browser.get(page)
  chart = show(browser, '[data-chart="score-by-bits-best-0"]')

  def brightness(script):
    text = browser.execute_script(script, chart)
    if text.startswith('#'):
      return sum(int(text[i : i + 2], 16) for i in (1, 3, 5)) / 3
    return sum(map(int, text[text.index('(') + 1 : -1].split(',')[:3])) / 3

  ground = 'return getComputedStyle(document.body).backgroundColor'
  paper = "return arguments[0].querySelector('.plot')._fullLayout.paper_bgcolor"
  text = "return arguments[0].querySelector('.plot')._fullLayout.font.color"
  assert brightness(ground) > 200
  assert brightness(paper) > 200
  assert brightness(text) < 60
  look(browser, DESKTOP, 'dark')
  wait(browser, lambda: chart.get_attribute('data-drawn') == 'dark')
  assert brightness(ground) < 60
  assert brightness(paper) < 60
  assert brightness(text) > 200


@pytest.fixture(scope='module')
def many(tmp_path_factory):
  """200 trials, 8 of them without a score, of long names and settings."""
  folder = tmp_path_factory.mktemp('many') / ('a-long-name' * 10)
  rates = [0.1 / 2**i for i in range(6)]
  for i in range(192):
    make_run(
      folder / ('trial' * 12 + f'{i}'),
      bits=(1, 2, 4, 32)[i % 4],
      seed=i // 24,
      score=3 + 0.01 * i,
      grid=i < 8,
      generator__learning_rate=rates[i // 4 % 6],
    )
  trials = [
    {'name': f'wait{i}', 'config': config_of(4, i), 'command': 'x' * 300}
    for i in range(8)
  ]
  write_sweep(
    folder, trials, {'wait0': {'state': 'failed', 'message': 'x' * 99}}
  )
  return address_of(folder)


@pytest.mark.parametrize('sweep', ['page', 'many'])
def test_a_phone_scrolls_in_one_direction_only(browser, sweep, request):
  address = request.getfixturevalue(sweep)
  look(browser, PHONE)
  browser.get(address)
  for chart in shown_charts(browser):
    browser.execute_script('arguments[0].scrollIntoView()', chart)
    wait(browser, lambda chart=chart: chart.get_attribute('data-drawn'))
  width = 'return document.documentElement.scrollWidth'
  assert browser.execute_script(width) == PHONE[0]


def test_pictures_and_numbers_for_a_paper(browser, page, tmp_path):
  browser.execute_cdp_cmd(
    'Browser.setDownloadBehavior',
    {'behavior': 'allow', 'downloadPath': str(tmp_path)},
  )
  browser.get(page)
  chart = show(browser, '[data-chart="score-by-bits-best-0"]')

  def saved(kind, within=chart):
    within.find_element(By.CSS_SELECTOR, f'[data-save={kind}]').click()
    ending = '.csv' if kind == 'table' else f'.{kind}'
    (path,) = wait(browser, lambda: list(tmp_path.glob(f'*{ending}')))
    return path

  with Image.open(saved('png')) as picture:
    assert picture.size == (2160, 1320)
    assert picture.convert('RGB').getpixel((0, 0)) == (255, 255, 255)
  assert '<svg' in saved('svg').read_text()
  path = saved('csv')
  assert path.name == 'score-by-bits-best-0.csv'
  rows = list(csv.DictReader(path.open()))
  means = [row for row in rows if row['what'] == 'means']
  assert len([row for row in rows if row['what'] == 'trials']) == 10
  assert [float(row['Fréchet distance']) for row in means][2] == pytest.approx(
    2.13
  )
  path.unlink()
  table = browser.find_element(By.CSS_SELECTOR, '#trials')
  rows = list(csv.DictReader(saved('table', table).open()))
  assert len(rows) == 11
  assert {row['trial'] for row in rows} >= {'no score', 'bits=4,seed=1'}


def test_a_running_sweep_is_followed_where_one_stands(browser, tmp_path):
  folder = make_sweep(tmp_path / 's', bits=(4, 32), seeds=(0,))
  pages = Report([folder], within=0.1, command='x').pages()
  server = serve.make_server(pages, '127.0.0.1', 0)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    browser.get(f'http://127.0.0.1:{server.server_port}/')
    show(browser, 'figure[data-name="gradient-norms"]')
    chart = 'figure[data-name="gradient-norms"] select'
    Select(browser.find_element(By.CSS_SELECTOR, chart)).select_by_index(1)
    before = browser.execute_script('return scrollY')
    assert before > 500
    make_run(folder / 'new one', 8, grid=False)
    wait(browser, lambda: 'new one' in browser.page_source)
    show(browser, 'figure[data-name="gradient-norms"]')
    select = Select(browser.find_element(By.CSS_SELECTOR, chart))
    assert 'of D' in select.first_selected_option.text
    live = browser.find_element(By.ID, 'live')
    assert live.text == 'live'
  finally:
    server.shutdown()
    server.server_close()
  wait(browser, lambda: 'has ended' in live.text)
  # That the server has gone is the one thing that a browser may complain of.
  time.sleep(0.1)
  complaints = [entry['message'] for entry in browser.get_log('browser')]
  assert all('ERR_CONNECTION_REFUSED' in text for text in complaints)
