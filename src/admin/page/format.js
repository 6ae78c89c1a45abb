// How numbers, times and states are written. Pure: no element, no clock.

const UNITS = [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]];

// A length of time in its two largest units.
function span(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const first = UNITS.findIndex(([, size]) => left >= size);
  if (first < 0) return '0s';
  const parts = [];
  for (const [unit, size] of UNITS.slice(first, first + 2)) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0 || parts.length === 0) parts.push(count + unit);
  }
  return parts.join(' ');
}

// How long ago, and in how long. A time that cannot be read is none.
function ago(time, now) {
  const at = Date.parse(time);
  return Number.isNaN(at) ? '?' : span((now - at) / 1000);
}
function ahead(time, now) {
  const at = Date.parse(time);
  return Number.isNaN(at) ? '?' : span((at - now) / 1000);
}

function scaled(value, step, units) {
  let power = 0;
  while (value >= step && power < units.length - 1) {
    value /= step;
    power += 1;
  }
  const digits = power === 0 || value >= 100 ? 0 : 1;
  return value.toFixed(digits) + units[power];
}
function amount(value) {
  return value < 100000 ? String(Math.round(value)) : scaled(value, 1000, ['', ' k', ' M', ' G', ' T', ' P']);
}
function bytes(value) {
  return scaled(value, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB']);
}

// A rate; a dash before there are two answers to compare.
function perSecond(value, write) {
  if (value === null) return '–';
  if (write === bytes) return bytes(value) + '/s';
  return (value > 0 && value < 10 ? value.toFixed(1) : amount(value)) + '/s';
}
function milliseconds(value) {
  return typeof value === 'number' ? value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0) + ' ms' : '–';
}
function ofLimit(count, limit) {
  return typeof limit === 'number' ? amount(count) + ' of ' + amount(limit) : amount(count);
}
function counted(count, noun) {
  return amount(count) + ' ' + noun + (count === 1 ? '' : 's');
}

// The colour and shape that go with a word.
function tone(state) {
  switch (state) {
    case 'ok': case 'up': return 'good';
    case 'degraded': case 'starting': return 'warn';
    case 'down': return 'bad';
    case 'drained': return 'held';
    default: return 'plain';
  }
}

function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
}
function day(at) {
  return new Date(at).toLocaleDateString([], { weekday: 'long', year: 'numeric', month: 'short', day: 'numeric' });
}
// A time with its day, unless that is today.
function moment(time, now) {
  const at = Date.parse(time);
  if (Number.isNaN(at)) return '?';
  if (new Date(at).toDateString() === new Date(now).toDateString()) return clock(at);
  return new Date(at).toLocaleDateString([], { weekday: 'short', month: 'short', day: 'numeric' }) + ' ' + clock(at);
}
