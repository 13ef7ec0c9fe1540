// Every figure of /metrics/json, whatever it is called: a figure that the node gains is found here without a line of
// code.

import { card, cut, element, showFigure } from '../dom.js';
import { byName, compact } from '../format.js';
import { dataTable } from '../table.js';

export const title = 'All figures';
export const letter = 'n';
export const needs = ['read', 'admin'];

export function show(context) {
    const { history } = context;
    let before = null;
    const table = dataTable({
        caption: 'Figures of this node',
        filter: 'Filter figures',
        empty: 'There are no figures yet.',
        key: (row) => row.path,
        columns: [
            { label: 'Figure', isHeader: true, text: (row) => row.path, node: (row) => element('code', {}, row.path) },
            {
                label: 'Exactly', isNumber: true, text: (row) => String(row.value), value: (row) => row.value,
                node: ({ value }) => (typeof value === 'string'
                    ? element('span', { class: 'figure cut', title: value }) : element('span', { class: 'figure' })),
                mark: (cell, row) => showFigure(cell.firstElementChild, row.path, row.value, String),
            },
            {
                label: 'Read as', isNumber: true, text: readAs, value: (row) => row.value,
                node: (row) => (typeof row.value === 'string' ? cut(readAs(row)) : readAs(row)),
            },
            { label: 'Change a second', isNumber: true, text: (row) => change(row.change), value: (row) => row.change },
        ],
    });
    context.onPoll(() => {
        const { metrics } = history.latest;
        const rows = leaves('', metrics);
        const took = before === null ? 0 : metrics.uptime_seconds - before.uptime_seconds;
        table.update(rows.map((row) => ({
            ...row,
            change: took > 0 && typeof row.value === 'number' ? (row.value - before.values.get(row.path)) / took : null,
        })));
        before = {
            uptime_seconds: metrics.uptime_seconds,
            values: new Map(rows.map((row) => [row.path, row.value])),
        };
    });
    return [card('As of the last poll', table.node)];
}

function readAs({ path, value }) {
    return byName(path, value);
}

function change(value) {
    if (value === null || !Number.isFinite(value)) {
        return '–';
    }
    return value === 0 ? '0' : `${value > 0 ? '+' : '−'}${compact(Math.abs(value))}`;
}

function leaves(path, value) {
    if (typeof value !== 'object' || value === null) {
        return [{ path, value }];
    }
    return Object.entries(value).flatMap(([part, inner]) => leaves(path === '' ? part : `${path}.${part}`, inner));
}
