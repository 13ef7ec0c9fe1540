// Requests that took longest to run, newest first. The words of a request are a stranger's text, and are cut by the
// node.

import { card, element, setText, strange } from '../dom.js';
import { microseconds, time } from '../format.js';
import { dataTable } from '../table.js';

export const title = 'Slow log';
export const letter = 's';
export const needs = ['admin'];

const PERIOD_MS = 3000;
const SHOWN = 100;

export function show(context) {
    const about = element('p', { class: 'quiet' });
    const table = dataTable({
        caption: 'Slow requests, newest first',
        filter: 'Filter requests',
        empty: 'No request was slow.',
        key: (row) => row.id,
        columns: [
            { label: 'Number', isNumber: true, isHeader: true, text: (row) => String(row.id), value: (row) => row.id },
            { label: 'When', isWhole: true, text: (row) => time(row.at_ms), value: (row) => row.at_ms },
            { label: 'Took', isNumber: true, text: (row) => microseconds(row.took_us), value: (row) => row.took_us },
            {
                label: 'Request', isProse: true, text: words,
                node: (row) => element('code', {}, strange(words(row), 400)),
            },
            { label: 'Client', isWhole: true, text: client, node: (row) => strange(client(row)) },
        ],
    });
    context.every(PERIOD_MS, async (signal) => {
        const answer = await context.client.get('/slow', { count: SHOWN }, { signal });
        setText(about, answer.threshold_us < 0 ? `${answer.node} notes down nothing: the log is off.`
            : `What took ${answer.node} ${microseconds(answer.threshold_us)} or longer.`);
        table.update(answer.entries);
    });
    return [card('Requests', about, table.node)];
}

function words(row) {
    return row.words.map((word) => (/^[^\s"]+$/.test(word) ? word : JSON.stringify(word))).join(' ');
}

function client(row) {
    return row.client_name ? `${row.client} ${row.client_name}` : row.client;
}
