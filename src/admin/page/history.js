// What one answer cannot say: rates and recent values, from the answers that came before. Pure: no element, no clock.

// Values kept for each small line.
const KEPT = 30;

// Rates of growing counters, by the counters' names.
class Rates {
  constructor() {
    this.last = null;
    this.at = 0;
    this.process = null;
    this.lines = new Map();
  }

  // Takes an answer in; `at` in milliseconds.
  take(status, at) {
    const counters = new Map();
    const values = new Map();
    const total = { new: 0, refused: 0, in: 0, out: 0 };
    for (const [service, of] of Object.entries(status.services)) {
      counters.set(service + ' new', of.total);
      counters.set(service + ' refused', of.refused);
      total.refused += of.refused;
      total.new += of.total;
      const sum = { in: 0, out: 0 };
      for (const [name, backend] of Object.entries(of.backends)) {
        const key = service + '/' + name + ' ' + backend.address;
        counters.set(key + ' new', backend.total);
        counters.set(key + ' in', backend.bytes_in);
        counters.set(key + ' out', backend.bytes_out);
        values.set(key + ' probe', backend.probe_ms);
        sum.in += backend.bytes_in;
        sum.out += backend.bytes_out;
      }
      for (const way of ['in', 'out']) {
        counters.set(service + ' ' + way, sum[way]);
        total[way] += sum[way];
      }
    }
    for (const [name, count] of Object.entries(total)) counters.set(' ' + name, count);
    values.set(' sessions', status.sessions);

    // Another process counts from 0.
    const process = status.pid + ' ' + status.started;
    const before = process === this.process ? this.last : null;
    const seconds = (at - this.at) / 1000;
    const now = new Map();
    for (const [name, count] of counters) {
      const last = before ? before.get(name) : undefined;
      const rate = last === undefined || seconds <= 0 || count < last ? null : (count - last) / seconds;
      now.set(name, rate);
      if (name.endsWith(' new')) values.set(name, rate);
    }
    for (const name of this.lines.keys()) if (!values.has(name)) this.lines.delete(name);
    for (const [name, value] of values) {
      const line = this.lines.get(name) ?? [];
      line.push(typeof value === 'number' ? value : null);
      if (line.length > KEPT) line.shift();
      this.lines.set(name, line);
    }
    this.now = now;
    this.last = counters;
    this.at = at;
    this.process = process;
  }

  // Growth in a second; null while there is nothing to compare.
  of(name) {
    return this.now.get(name) ?? null;
  }

  line(name) {
    return this.lines.get(name) ?? [];
  }
}
