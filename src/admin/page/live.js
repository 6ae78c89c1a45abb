// Asks the balancer again and again, and says so when it does not answer. Nothing here sends anything but GETs.

const PACE = 2000;
const PATIENCE = 5000;
// A page that nobody looks at asks less often: its title still says how things are.
const HIDDEN_PACE = 10000;
const TIMELINE_PACE = 5000;
const NO_TIMELINE_PACE = 60000;

const rates = new Rates();
let latest = null;
let answeredAt = null;
// The balancer's clock against this one.
let skew = 0;
let timelineDue = 0;
let answers = 0;

function now() {
  return Date.now() + skew;
}

async function ask(path) {
  const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error('it answered ' + response.status);
  const date = Date.parse(response.headers.get('date'));
  // The header has whole seconds.
  if (!Number.isNaN(date)) skew = Math.abs(date - Date.now()) < 2000 ? 0 : date - Date.now();
  return response.json();
}

function announce({ tone: grade, text }) {
  style(byId('mark'), 'mark ' + grade);
  write(byId('headline'), text);
  const title = text + ' – balancer';
  if (document.title !== title) document.title = title;
  const colour = getComputedStyle(byId('mark')).backgroundColor;
  const shape = '<svg xmlns="' + SVG + '" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="' + colour + '"/></svg>';
  const icon = 'data:image/svg+xml,' + encodeURIComponent(shape);
  if (byId('icon').getAttribute('href') !== icon) byId('icon').setAttribute('href', icon);
}

function redraw() {
  if (!latest) return;
  const at = now();
  write(byId('process'), process(latest, at));
  drawTiles(latest, rates);
  drawAttention(latest, at);
  drawServices(latest, rates, at);
}

// Draws an answer. The tests also draw answers of their own with it.
function show(status, at) {
  rates.take(status, at);
  latest = status;
  redraw();
  announce(headline(status));
  document.body.classList.remove('stale');
  answers += 1;
  byId('main').dataset.answers = answers;
}

function showTimeline(answer) {
  hide(byId('timeline'), answer === null);
  document.querySelector('.columns').classList.toggle('two', answer !== null);
  if (answer === null) return;
  events = answer.events;
  write(byId('timeline-note'), events.length ? 'Local times, the newest first.' : 'Nothing has happened in the last 24 hours.');
  drawTimeline();
}

function silent(error) {
  const since = answeredAt === null ? '' : '; what stands below is from ' + clock(answeredAt);
  announce({ tone: 'bad', text: 'The balancer does not answer' + since });
  document.body.classList.add('stale');
  hint(byId('headline'), String(error));
}

function age() {
  if (answeredAt === null) return;
  const seconds = Math.round((Date.now() - answeredAt) / 1000);
  write(byId('fresh'), document.body.classList.contains('stale') ? 'last answer ' + span(seconds) + ' ago' : 'live');
}

// Asks once and draws what comes: the milliseconds that took.
async function turn() {
  const start = performance.now();
  let status = null;
  try {
    status = await ask('v1/status');
    if (status === null) throw new Error('there is no status');
  } catch (error) {
    silent(error);
    return 0;
  }
  answeredAt = Date.now();
  show(status, performance.now());
  hint(byId('headline'), '');
  const took = performance.now() - start;
  if (performance.now() < timelineDue) return took;
  // Before it is asked, so that one that fails is not asked at every turn.
  timelineDue = performance.now() + TIMELINE_PACE;
  try {
    const answer = await ask('v1/timeline?since=24h&limit=200');
    if (answer === null) timelineDue = performance.now() + NO_TIMELINE_PACE;
    showTimeline(answer);
  } catch (error) {
    write(byId('timeline-note'), 'The timeline cannot be had: ' + error.message);
  }
  return took;
}

// What takes long to send and draw is asked for less often.
async function live() {
  let took = 0;
  try {
    took = await turn();
  } catch (error) {
    console.error(error);
    announce({ tone: 'bad', text: 'This page cannot show the answer: ' + error.message });
  }
  age();
  setTimeout(live, document.hidden ? HIDDEN_PACE : Math.max(PACE, took * 10));
}

byId('filter').addEventListener('input', redraw);
byId('timeline-more').addEventListener('click', () => {
  whole = !whole;
  drawTimeline();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) age();
});
setInterval(age, 1000);
live();
