// The configuration in force, each setting with where it comes from. It only reads; the node never tells a secret.

import { card, element } from '../dom.js';
import { dataTable } from '../table.js';

export const title = 'Configuration';
export const letter = 'c';
export const needs = ['admin'];

const PERIOD_MS = 15_000;

const SOURCES = {
    default: 'default', file: 'configuration file', environment: 'environment', flag: 'flag', set: 'CONFIG SET',
    cluster: 'the whole cluster',
};

export function show(context) {
    const table = dataTable({
        caption: 'Settings in force',
        filter: 'Filter settings',
        empty: 'There are no settings.',
        key: (row) => row.name,
        sort: [0, true],
        columns: [
            { label: 'Setting', isHeader: true, text: (row) => row.name, node: (row) => element('code', {}, row.name) },
            { label: 'Value', isProse: true, text: value, node: (row) => element('code', {}, value(row)) },
            {
                label: 'From', text: (row) => SOURCES[row.source] ?? String(row.source),
                node: (row) => element('span', { class: row.source === 'default' ? 'quiet' : 'tag' },
                    SOURCES[row.source] ?? String(row.source)),
            },
            { label: 'While running', text: (row) => (row.may_change ? 'may change' : 'needs a restart') },
        ],
    });
    context.every(PERIOD_MS, async (signal) => {
        table.update((await context.client.get('/config', {}, { signal })).settings);
    });
    return [card('In force on this node', table.node)];
}

function value(row) {
    return typeof row.value === 'string' ? row.value || '""' : JSON.stringify(row.value);
}
