// The services, each with its backends. Rows exist only where a service is open.

// With more backends than this, only services that need a look are open at first.
const FEW = 24;

const services = new Map();
// What a person has opened or closed stays so.
const chosen = new Map();

const CELLS = [
  ['sessions', 'Sessions'], ['new', 'New'], ['in', 'In'], ['out', 'Out'], ['failures', 'Failed'], ['probe', 'Probe'],
];

function makeService(name) {
  const root = make('details', 'service');
  const summary = make('summary');
  const title = make('h3', '', name);
  const mark = make('span', 'mark');
  mark.setAttribute('aria-hidden', 'true');
  const word = make('span');
  const state = make('span', 'state', mark, word);
  const facts = make('span', 'facts');
  const line = spark();
  const fact = {};
  for (const key of ['up', 'sessions', 'new', 'refused', 'in', 'out']) facts.append(fact[key] = make('span'));
  fact.new.after(line);
  for (const key of ['new', 'in', 'out', 'refused']) style(fact[key], 'right');
  summary.append(make('span', 'title', title), state, facts);
  const where = make('p', 'redundancy quiet');
  const redundancy = make('p', 'redundancy');
  const table = make('div', 'backends');
  table.setAttribute('role', 'table');
  table.setAttribute('aria-label', 'Backends of ' + name);
  const head = make('div', 'row head');
  head.setAttribute('role', 'row');
  for (const [index, text] of ['Backend', 'State', ...CELLS.map(([, label]) => label)].entries()) {
    const cell = make('span', index > 1 ? 'number' : '', text);
    cell.setAttribute('role', 'columnheader');
    head.append(cell);
  }
  const body = make('div');
  body.setAttribute('role', 'rowgroup');
  table.append(head, body);
  root.append(summary, redundancy, where, table);
  // The browser opens it after this: what is asked for is the opposite of what is.
  summary.addEventListener('click', () => {
    chosen.set(name, !root.open);
    setTimeout(redraw);
  });
  return { root, state, word, line, fact, where, redundancy, body, rows: new Map() };
}

function makeBackend(label) {
  const root = make('div', 'row backend');
  root.setAttribute('role', 'row');
  const cell = (className) => {
    const node = make('span', className);
    node.setAttribute('role', 'cell');
    root.append(node);
    return node;
  };
  const who = cell('who');
  const [name, role] = [make('span', 'name', label), make('span', 'quiet')];
  who.append(name, ' ', role);
  const state = cell('state');
  const mark = make('span', 'mark');
  mark.setAttribute('aria-hidden', 'true');
  const [word, age] = [make('span'), make('span', 'age')];
  state.append(mark, word, ' ', age);
  const parts = { root, role, state, word, age };
  for (const [key, text] of CELLS) {
    const node = cell('number');
    node.dataset.label = text;
    if (key === 'new' || key === 'probe') {
      style(node, 'number sparked');
      node.append(parts[key + 'Line'] = spark(), parts[key] = make('span'));
    } else {
      node.append(parts[key] = make('span'));
    }
  }
  parts.note = cell('note');
  return parts;
}

// Who drains a backend; why, and for how long still.
function holder(drain) {
  return drain && drain.by ? ' by ' + drain.by : '';
}
function lease(drain, now) {
  const left = Date.parse(drain.until) - now;
  const until = Number.isNaN(left) ? '' : left > 0 ? 'comes back in ' + ahead(drain.until, now) : 'is due back';
  return [drain.reason, until].filter(Boolean).join('; ');
}
function whyOut(drain, now) {
  return (drain.kind === 'drill' ? 'drill' : 'drained') + holder(drain) + ': ' + lease(drain, now);
}

function redundancy(of) {
  const r = of.redundancy;
  if (!r) return '';
  let text = r.serving + ' of ' + r.expected + ' serving';
  if (r.missing > 0) text += ', ' + r.missing + ' missing';
  if (r.missing_seconds >= 1) text += '; redundancy was missing for ' + span(r.missing_seconds) + ' in all';
  if (typeof r.survivable_failures === 'number') {
    text += r.survivable_failures > 0
      ? '; would survive the loss of ' + r.survivable_failures + ' more'
      : '; would not survive the loss of one more';
  }
  return text;
}

function drawBackend(parts, key, backend, rates, now) {
  style(parts.root, 'row backend ' + tone(backend.state));
  write(parts.role, backend.role === 'primary' ? '' : backend.role);
  write(parts.word, backend.state);
  write(parts.age, ago(backend.since, now));
  hint(parts.age, 'since ' + backend.since);
  write(parts.sessions, ofLimit(backend.connections, backend.max_connections));
  hint(parts.sessions, amount(backend.total) + ' in all');
  write(parts.new, perSecond(rates.of(key + ' new'), amount));
  write(parts.in, perSecond(rates.of(key + ' in'), bytes));
  hint(parts.in, bytes(backend.bytes_in) + ' in all');
  write(parts.out, perSecond(rates.of(key + ' out'), bytes));
  hint(parts.out, bytes(backend.bytes_out) + ' in all');
  write(parts.failures, amount(backend.failures));
  write(parts.probe, milliseconds(backend.probe_ms));
  plot(parts.newLine, rates.line(key + ' new'));
  plot(parts.probeLine, rates.line(key + ' probe'));
  write(parts.note, [backend.address, backend.drain ? whyOut(backend.drain, now) : backend.reason].filter(Boolean).join(' · '));
}

function matches(wanted, service, name, backend) {
  return [service, name, service + '/' + name, backend.address, backend.state, backend.role]
    .some((text) => text.toLowerCase().includes(wanted));
}

function drawService(parts, name, of, rates, now, { open, wanted }) {
  const all = Object.entries(of.backends);
  const shown = wanted ? all.filter(([backend, what]) => matches(wanted, name, backend, what)) : all;
  const hits = shown.length > 0;
  hide(parts.root, !hits);
  if (!hits) return false;
  style(parts.root, 'service ' + tone(of.state));
  write(parts.word, of.state);
  const up = all.filter(([, backend]) => backend.state === 'up' && backend.role === 'primary').length;
  const primaries = all.filter(([, backend]) => backend.role === 'primary').length;
  const spare = all.length - primaries;
  write(parts.fact.up, up + ' of ' + primaries + ' up' + (spare ? ' + ' + counted(spare, 'backup') : ''));
  const waiting = of.queued > 0 ? ', ' + amount(of.queued) + ' waiting' : '';
  write(parts.fact.sessions, ofLimit(of.connections, of.max_connections) + ' open' + waiting);
  write(parts.fact.new, perSecond(rates.of(name + ' new'), amount) + ' new');
  plot(parts.line, rates.line(name + ' new'));
  write(parts.fact.in, '↓ ' + perSecond(rates.of(name + ' in'), bytes));
  hint(parts.fact.in, 'from clients to backends');
  write(parts.fact.out, '↑ ' + perSecond(rates.of(name + ' out'), bytes));
  hint(parts.fact.out, 'from backends to clients');
  const refusals = Object.entries(of.refused_by ?? {}).filter(([, count]) => count > 0);
  write(parts.fact.refused, amount(of.refused) + ' refused');
  hint(parts.fact.refused, refusals.map(([reason, count]) => reason + ' ' + amount(count)).join(', '));

  const wide = wanted ? true : chosen.get(name) ?? open;
  if (parts.root.open !== wide) parts.root.open = wide;
  if (!wide) return true;
  write(parts.redundancy, redundancy(of));
  hide(parts.redundancy, parts.redundancy.shown === '');
  const listen = of.listen.length ? 'listens on ' + of.listen.join(', ') : 'does not listen yet';
  write(parts.where, listen + ' · ' + of.balance.replaceAll('_', ' '));
  arrange(parts.body, parts.rows, shown.map(([backend]) => backend), makeBackend);
  for (const [backend, what] of shown) {
    drawBackend(parts.rows.get(backend), name + '/' + backend + ' ' + what.address, what, rates, now);
  }
  return true;
}

function drawServices(status, rates, now) {
  const all = Object.entries(status.services);
  const count = all.reduce((sum, [, of]) => sum + Object.keys(of.backends).length, 0);
  const wanted = byId('filter').value.trim().toLowerCase();
  arrange(byId('service-list'), services, all.map(([name]) => name), makeService);
  let found = false;
  for (const [name, of] of all) {
    const open = of.state !== 'ok' || count <= FEW;
    found = drawService(services.get(name), name, of, rates, now, { open, wanted }) || found;
  }
  hide(byId('nothing'), found);
}
