// What has happened in the cluster, as this node has seen it: the node keeps the last 512 events, and so does this
// page.

import { card, cut, element } from '../dom.js';
import { count, time } from '../format.js';
import { dataTable } from '../table.js';

export const title = 'Events';
export const letter = 'e';
export const needs = ['read', 'admin'];

const PERIOD_MS = 2000;
const KEPT = 512;

export function show(context) {
    let events = [];
    const table = dataTable({
        caption: 'Events of the cluster',
        filter: 'Filter events',
        empty: 'Nothing has happened since the node started.',
        key: (row) => row.number,
        sort: [0, false],
        columns: [
            {
                label: 'Number', isNumber: true, isHeader: true,
                text: (row) => String(row.number), value: (row) => row.number,
            },
            { label: 'When', isWhole: true, text: (row) => time(row.time_ms), value: (row) => row.time_ms },
            { label: 'What', text: kind, node: (row) => element('span', { class: 'tag' }, kind(row)) },
            { label: 'Member', text: member, node: (row) => cut(member(row)) },
            { label: 'Epoch', isNumber: true, text: (row) => count(row.epoch), value: (row) => row.epoch },
            { label: 'In words', isProse: true, text: (row) => row.text },
        ],
    });
    context.every(PERIOD_MS, async (signal) => {
        const after = events.at(-1)?.number ?? 0;
        const answer = await context.client.get('/cluster/events', { after }, { signal });
        // A node that was started anew counts from 1 again.
        const isAnew = answer.count < after;
        events = isAnew ? [] : [...events, ...answer.events].slice(-KEPT);
        if (!isAnew) {
            table.update(events);
        }
    });
    return [card('As this node has seen them', table.node)];
}

function member(row) {
    return row.member ?? '–';
}

function kind(row) {
    return row.kind.replaceAll('_', ' ');
}
