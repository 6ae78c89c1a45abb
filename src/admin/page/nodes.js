// Elements: made once, changed only where what they show has changed. Whatever comes from the balancer becomes text, never markup.

const SVG = 'http://www.w3.org/2000/svg';

function byId(id) {
  return document.getElementById(id);
}
function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}
function write(node, value) {
  if (node.shown === value) return;
  node.shown = value;
  node.textContent = value;
}
function style(node, value) {
  if (node.className !== value) node.className = value;
}
function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}
function hint(node, value) {
  if (node.title !== value) node.title = value;
}

// A small line of the last values; the number beside it says the last one.
function spark() {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 60 20');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('class', 'spark');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(SVG, 'polyline'));
  return svg;
}
function plot(svg, values) {
  const top = Math.max(...values.filter((value) => value !== null), 0);
  const points = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const x = 60 - (values.length - 1 - index) * (60 / (KEPT - 1));
    points.push(x.toFixed(1) + ',' + (top > 0 ? 19 - (value / top) * 18 : 19).toFixed(1));
  });
  const text = points.length > 1 ? points.join(' ') : '';
  if (svg.shown === text) return;
  svg.shown = text;
  svg.firstChild.setAttribute('points', text);
}

// Brings a list's children into the order of `keys`: `create` makes those that are missing, the rest stay or go.
function arrange(parent, nodes, keys, create) {
  const wanted = new Set(keys);
  for (const [key, node] of nodes) {
    if (!wanted.has(key)) {
      node.root.remove();
      nodes.delete(key);
    }
  }
  let next = parent.firstChild;
  for (const key of keys) {
    let node = nodes.get(key);
    if (!node) {
      node = create(key);
      nodes.set(key, node);
    }
    if (node.root === next) next = next.nextSibling;
    else parent.insertBefore(node.root, next);
  }
}
