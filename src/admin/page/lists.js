// What stands around the services: the headline, the tiles, what needs a person, and the timeline.

const tiles = new Map();
const needs = new Map();

// How bad a state is, for the worst of several.
const GRADES = ['good', 'plain', 'held', 'warn', 'bad'];

function headline(status) {
  if (status.stopping) return { tone: 'bad', text: 'Stopping: no client is accepted any more' };
  const states = Object.entries(status.services);
  const named = (state) => states.filter(([, of]) => of.state === state).map(([name]) => name);
  const list = (names) => names.slice(0, 3).join(', ') + (names.length > 3 ? ' and ' + (names.length - 3) + ' more' : '');
  const [down, degraded] = [named('down'), named('degraded')];
  if (down.length) {
    const rest = degraded.length ? '; ' + list(degraded) + ' degraded' : '';
    return { tone: 'bad', text: list(down) + (down.length === 1 ? ' is down' : ' are down') + rest };
  }
  if (degraded.length) return { tone: 'warn', text: list(degraded) + (degraded.length === 1 ? ' is degraded' : ' are degraded') };
  return { tone: 'good', text: states.length === 1 ? states[0][0] + ' is ok' : 'All ' + states.length + ' services are ok' };
}

function makeTile(label) {
  const root = make('div', 'tile');
  const value = make('span', 'value');
  const more = make('span', 'more quiet');
  const line = spark();
  root.append(make('span', 'name quiet', label), value, line, more);
  return { root, value, more, line };
}

function drawTiles(status, rates) {
  const refused = Object.values(status.services).reduce((sum, of) => sum + of.refused, 0);
  const total = Object.values(status.services).reduce((sum, of) => sum + of.total, 0);
  const rows = [
    ['Sessions open', amount(status.sessions), status.max_connections ? 'of ' + amount(status.max_connections) : 'no limit', ' sessions'],
    ['New sessions', perSecond(rates.of(' new'), amount), amount(total) + ' in all', ' new'],
    ['Refused', perSecond(rates.of(' refused'), amount), amount(refused) + ' in all', null],
    ['From clients', perSecond(rates.of(' in'), bytes), 'to backends', null],
    ['To clients', perSecond(rates.of(' out'), bytes), 'from backends', null],
    ['Descriptors', typeof status.descriptors === 'number' ? amount(status.descriptors) : '–', 'of ' + amount(status.descriptors_max), null],
  ];
  arrange(byId('tiles'), tiles, rows.map(([label]) => label), makeTile);
  for (const [label, value, more, line] of rows) {
    const tile = tiles.get(label);
    write(tile.value, value);
    write(tile.more, more);
    if (line) plot(tile.line, rates.line(line));
    if (tile.line.style.display !== (line ? '' : 'none')) tile.line.style.display = line ? '' : 'none';
  }
}

function process(status, now) {
  const config = status.config;
  const parts = [
    'balancer ' + status.version + ', process ' + status.pid,
    'up ' + ago(status.started, now),
    counted(status.workers, 'worker'),
    'generation ' + config.generation + ', loaded ' + ago(config.loaded, now) + ' ago' + (config.path ? ' from ' + config.path : ''),
  ];
  return parts.join(' · ');
}

// One line each: [tone, what, the rest].
function attention(status, now) {
  const lines = [];
  let starting = 0;
  for (const [service, of] of Object.entries(status.services)) {
    const missing = of.redundancy && of.redundancy.missing > 0
      ? ': ' + of.redundancy.missing + ' of ' + of.redundancy.expected + ' missing' : '';
    if (of.state !== 'ok') lines.push([tone(of.state), 'Service ' + service + ' is ' + of.state, missing]);
    for (const [name, backend] of Object.entries(of.backends)) {
      const who = service + '/' + name;
      const age = ' for ' + ago(backend.since, now);
      if (backend.state === 'drained') {
        const what = who + (backend.drain && backend.drain.kind === 'drill' ? ' is in a drill' : ' is drained');
        const why = backend.drain ? lease(backend.drain, now) : backend.reason;
        lines.push(['held', what, holder(backend.drain) + age + ': ' + why]);
      } else if (backend.state === 'down') {
        lines.push(['bad', who + ' is down', age + ': ' + backend.reason]);
      } else if (backend.state === 'starting') {
        starting += 1;
      } else if (backend.role === 'backup' && backend.connections > 0) {
        lines.push(['warn', 'Backup ' + who + ' is in use', ': ' + counted(backend.connections, 'session')]);
      }
    }
  }
  if (starting > 0) lines.push(['warn', counted(starting, 'backend') + ' not probed yet', '']);
  for (const orphan of status.orphans ?? []) {
    const health = orphan.state === 'up' ? 'healthy' : orphan.state;
    lines.push([orphan.state === 'up' ? 'warn' : 'plain',
      orphan.service + '/' + orphan.backend + ' (' + orphan.address + ') is ' + health + ' and out of the pool',
      ' since ' + moment(orphan.removed, now) + ', removed by the reload to generation ' + orphan.generation
        + (orphan.state === 'up' ? '' : '; ' + orphan.reason) + '; watched for another ' + ahead(orphan.until, now)]);
  }
  for (const left of status.leaving ?? []) {
    lines.push(['plain', left.service + '/' + left.backend + ' (' + left.address + ') is leaving',
      ': ' + counted(left.connections, 'session') + ' still open']);
  }
  const { on_disk: disk, last_reload: reload } = status.config;
  if (disk === 'changed') lines.push(['warn', 'The configuration file has changed', ': what runs is from ' + ago(status.config.loaded, now) + ' ago, and a reload would apply the new one']);
  if (disk === 'missing') lines.push(['warn', 'The configuration file is gone', '; what runs cannot be started again from it']);
  if (reload && reload.result !== 'applied') {
    lines.push(['warn', 'The last reload was ' + reload.result, ', ' + ago(reload.at, now) + ' ago' + (reload.message ? ': ' + reload.message : '')]);
  }
  lines.sort((a, b) => GRADES.indexOf(b[0]) - GRADES.indexOf(a[0]));
  return lines;
}

// Lines shown of what may be thousands.
const MOST_NEEDS = 20;

function makeNeed() {
  const root = make('li');
  const mark = make('span', 'mark');
  mark.setAttribute('aria-hidden', 'true');
  const [what, rest] = [make('span', 'what'), make('span')];
  root.append(mark, make('span', 'body', what, rest));
  return { root, what, rest };
}

function drawAttention(status, now) {
  const lines = attention(status, now);
  if (lines.length > MOST_NEEDS) {
    const more = lines.length - MOST_NEEDS + 1;
    lines.splice(MOST_NEEDS - 1, more, ['plain', 'and ' + more + ' more', '; the services below show them']);
  }
  hide(byId('attention'), lines.length === 0);
  const keys = lines.map(([, what]) => what);
  arrange(byId('attention-list'), needs, keys, makeNeed);
  for (const [grade, what, rest] of lines) {
    const need = needs.get(what);
    style(need.root, grade);
    write(need.what, what);
    write(need.rest, rest);
  }
}

// What an event is called and how it looks; of a state's change the text says whether it is good.
const KINDS = {
  start: ['plain', 'start'], stop: ['warn', 'stop'], reload: ['plain', 'reload'], reload_refused: ['warn', 'reload refused'],
  state: ['plain', 'state'], drain: ['held', 'drain'], restore: ['good', 'restore'], lease_ended: ['held', 'lease ended'],
  reminder: ['held', 'reminder'], refused: ['bad', 'clients refused'], limit: ['warn', 'limit'], backup: ['warn', 'backup'],
  disagree: ['warn', 'probe and traffic disagree'], short: ['bad', 'running short'], orphan: ['warn', 'orphan'],
  forget: ['plain', 'forget'], drill: ['held', 'drill'],
};
function kindOf(event) {
  const [look, word] = KINDS[event.kind] ?? ['plain', event.kind];
  const to = event.kind === 'state' ? /→ (up|down|drained|starting|ok|degraded)\b/.exec(event.text) : null;
  return [to ? tone(to[1]) : look, word];
}

const SHORT = 25;
let events = [];
let eventsShown = '';
let whole = false;

// Events come oldest first and are shown newest first, under their days.
function drawTimeline() {
  const list = byId('timeline-list');
  const key = whole + JSON.stringify(events);
  if (key === eventsShown) return;
  eventsShown = key;
  const newest = [...events].reverse();
  const rows = document.createDocumentFragment();
  let last = '';
  for (const event of whole ? newest : newest.slice(0, SHORT)) {
    const date = day(event.time);
    if (date !== last) rows.append(make('li', 'day', date));
    last = date;
    const [look, word] = kindOf(event);
    const when = make('time', 'when', clock(event.time));
    when.dateTime = event.time;
    when.title = event.time;
    const by = event.by ? ', by ' + event.by : '';
    rows.append(make('li', look, when, ' ', make('span', 'kind', word), make('span', 'when', by), make('div', 'text', event.text)));
  }
  list.replaceChildren(rows);
  const more = byId('timeline-more');
  hide(more, events.length <= SHORT);
  write(more, whole ? 'Show only the last ' + SHORT : 'Show all ' + events.length);
}
