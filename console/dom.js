// Builds elements. Text only ever becomes a text node and attributes are set one by one: keys and values come from
// whoever may write to the cache, so nothing in the console parses HTML, here or elsewhere.

import { percent } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';

// Longer text than this is cut in lists and headings; a key may have 65,536 bytes.
const CUT_CHARACTERS = 160;

// What would not be seen, or would turn the text around it: controls, spaces but for the common one, marks of
// direction, joiners, and half a character.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]|(?! )\p{Zs}/gu;

/// An element of HTML. `on…` attributes are listeners, and null, undefined and false leave an attribute out.
export function element(name, attributes = {}, ...children) {
    return fill(document.createElement(name), attributes, children);
}

/// The same of SVG.
export function shape(name, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) {
            continue;
        }
        if (typeof value === 'function') {
            node.addEventListener(name.slice(2), value);
        } else {
            node.setAttribute(name, value === true ? '' : String(value));
        }
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
}

/// Sets text only where it differs, so that a selection of the reader survives a poll.
export function setText(node, text) {
    if (node.textContent !== text) {
        node.textContent = text;
    }
}

/// Shows a number of /metrics/json, and has it exactly in data-value; what is no number is shown, and claims nothing.
export function showFigure(node, path, value, format) {
    if (typeof value === 'number') {
        node.dataset.metric = path;
        node.dataset.value = String(value);
    } else {
        delete node.dataset.metric;
        delete node.dataset.value;
    }
    setText(node, format(value));
}

/// Text of strangers: isolated from the direction of the text around it, and what cannot be seen written out.
export function strange(text, limit = CUT_CHARACTERS) {
    const shown = text.length > limit ? text.slice(0, limit) : text;
    const node = element('bdi', { class: 'strange' }, ...pieces(shown));
    if (text.length > limit) {
        node.append(escape('…'));
    }
    if (text === '') {
        node.append(escape('the empty key'));
    }
    return node;
}

/// The pieces of a text: plain ones, and those that would not be seen as escapes. Characters of `kept` stay as they
/// are.
export function pieces(text, kept = '') {
    const found = [];
    let from = 0;
    for (const match of text.matchAll(UNSEEN)) {
        if (kept.includes(match[0])) {
            continue;
        }
        found.push(text.slice(from, match.index), escape(escaped(match[0])));
        from = match.index + match[0].length;
    }
    found.push(text.slice(from));
    return found.filter((piece) => piece !== '');
}

function escape(text) {
    return element('span', { class: 'escape' }, text);
}

function escaped(character) {
    const known = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\0': '\\0' }[character];
    return known ?? `\\u{${character.codePointAt(0).toString(16)}}`;
}

/// A share from 0 to 1, or null where it is not known: a number, and a bar for who compares.
export function shareCell(share) {
    const inside = element('span');
    inside.style.width = `${Math.min(1, Math.max(0, share ?? 0)) * 100}%`;
    return element('span', { class: 'share' },
        element('span', { class: 'bar', 'aria-hidden': 'true' }, inside), element('span', {}, percent(share)));
}

/// Pairs of a name and what it is, as text or an element.
export function facts(lines) {
    return element('dl', { class: 'facts' }, lines.flatMap(([name, value]) =>
        [element('dt', {}, name), element('dd', {}, value)]));
}

/// The name of a node in a table, which may have 64 letters, or a text as long: as much as leaves the other columns their room.
export function cut(text) {
    return element('span', { class: 'cut', title: text }, text);
}

/// A box with a heading.
export function card(title, ...children) {
    return element('section', { class: 'card' }, element('h2', {}, title), ...children);
}
