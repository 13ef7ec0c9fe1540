// A table that is sorted by its headers, filtered by a field, and brought up to date row by row: a row stays the same
// element while its key stays, so that focus and selection survive a poll. It asks nobody.

import { element, setText } from './dom.js';

const ORDER = new Intl.Collator('en', { numeric: true });

/// `columns` are `{ label, text(row) }`, and where needed `value(row)` to sort by, `node(row)` for what is more than
/// text, `mark(cell, row)` to set attributes, `isNumber`, `isHeader`, `isWhole` for text that is not broken, `isProse`
/// for much of it. `key(row)` tells rows apart. `filter` is the label of the field, and null for none; `sort` is
/// `[column, is ascending]`, null for the order that the rows come in.
export function dataTable({ caption, columns, key, filter = null, sort = null, empty, size = 'tall' }) {
    let [sorted, isAscending] = sort ?? [null, true];
    let all = [];
    const rows = new Map();

    const body = element('tbody');
    const headers = columns.map((column, at) => element('th', {
        scope: 'col', class: column.isNumber ? 'number' : null,
    }, element('button', { type: 'button', class: 'sort', onclick: () => sortBy(at) }, column.label)));
    const nothing = element('p', { class: 'quiet', hidden: true }, empty);
    const amount = element('span', { class: 'quiet', 'aria-live': 'off' });
    const field = filter === null ? null : element('input', {
        type: 'search', 'data-search': true, autocomplete: 'off', spellcheck: 'false', maxlength: 200,
        oninput: () => redraw(),
    });
    const scroll = element('div', { class: `scroll ${size}`, tabindex: 0, role: 'region', 'aria-label': caption },
        element('table', {}, element('caption', { class: 'unseen' }, caption),
            element('thead', {}, element('tr', {}, headers)), body));
    const node = element('div', { class: 'table-box' },
        field && element('div', { class: 'filter' }, element('label', {}, `${filter} `, field), amount),
        scroll, nothing);

    function sortBy(at) {
        // Numbers are mostly wanted largest first.
        isAscending = sorted === at ? !isAscending : !columns[at].isNumber;
        sorted = at;
        redraw();
    }

    function ordered() {
        if (sorted === null) {
            return all;
        }
        const read = columns[sorted].value ?? columns[sorted].text;
        const sign = isAscending ? 1 : -1;
        return all.map((row, place) => ({ row, place, value: read(row) }))
            .sort((one, other) => compare(one.value, other.value, sign) || one.place - other.place)
            .map(({ row }) => row);
    }

    function redraw() {
        headers.forEach((header, at) => {
            const order = isAscending ? 'ascending' : 'descending';
            header.setAttribute('aria-sort', at === sorted ? order : 'none');
        });
        const wanted = plain(field?.value.trim() ?? '');
        const present = new Set();
        let shown = 0;
        let place = body.firstElementChild;
        for (const row of ordered()) {
            const name = key(row);
            present.add(name);
            const line = rows.get(name) ?? make(name);
            const texts = columns.map((column) => column.text(row));
            update(line, row, texts);
            line.tr.hidden = wanted !== '' && !texts.some((text) => plain(text).includes(wanted));
            shown += line.tr.hidden ? 0 : 1;
            if (line.tr === place) {
                place = place.nextElementSibling;
            } else {
                body.insertBefore(line.tr, place);
            }
        }
        for (const [name, line] of rows) {
            if (!present.has(name)) {
                line.tr.remove();
                rows.delete(name);
            }
        }
        nothing.hidden = shown > 0;
        setText(nothing, wanted === '' ? empty : 'Nothing matches the filter.');
        scroll.hidden = shown === 0;
        setText(amount, wanted === '' ? String(all.length) : `${shown} of ${all.length}`);
    }

    function make(name) {
        const cells = columns.map((column) => element(column.isHeader ? 'th' : 'td', {
            scope: column.isHeader ? 'row' : null,
            class: column.isNumber ? 'number' : column.isWhole ? 'whole' : column.isProse ? 'prose' : null,
        }));
        const line = { tr: element('tr', {}, cells), cells, texts: [] };
        rows.set(name, line);
        return line;
    }

    function update(line, row, texts) {
        columns.forEach((column, at) => {
            if (line.texts[at] !== texts[at]) {
                line.cells[at].replaceChildren(column.node ? column.node(row) : texts[at]);
            }
            column.mark?.(line.cells[at], row);
        });
        line.texts = texts;
    }

    return {
        node,
        update(given) {
            all = given;
            redraw();
        },
    };
}

// As one types it: a unit is parted from its number by a space that does not break.
function plain(text) {
    return text.toLowerCase().replaceAll('\u00a0', ' ');
}

// What is not known goes last, whichever way the rest is sorted.
function compare(one, other, sign) {
    const isMissing = (value) => value === null || value === undefined;
    if (isMissing(one) || isMissing(other)) {
        return Number(isMissing(one)) - Number(isMissing(other));
    }
    return sign * (typeof one === 'number' && typeof other === 'number' ? one - other : ORDER.compare(one, other));
}
