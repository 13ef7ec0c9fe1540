// Keys that are used most, as this node estimates them from a sample, and those that take most room. It reads no value.

import { card, element, setText, shareCell, strange } from '../dom.js';
import { bytes, count, milliseconds, percent, seconds } from '../format.js';
import { keyIdentity, keyOnly, keyText } from '../bytes.js';
import { dataTable } from '../table.js';

export const title = 'Hot and big keys';
export const letter = 'k';
export const needs = ['read', 'admin'];

const HOT_PERIOD_MS = 3000;
// Looking for big keys goes over items, so it is asked seldom.
const BIG_PERIOD_MS = 20_000;
const SHOWN = 50;

// A list is no place for the whole of a long key.
const KEY_CHARACTERS = 80;

export function show(context) {
    const aboutHot = element('p', { class: 'quiet' });
    const aboutBig = element('p', { class: 'quiet' });
    const hot = dataTable({
        caption: 'Keys that are used most',
        filter: 'Filter hot keys',
        empty: 'No key has been used lately.',
        key: keyIdentity,
        columns: [
            keyColumn,
            { label: 'Uses', isNumber: true, text: (row) => count(row.count), value: (row) => row.count },
            {
                label: 'Share', isNumber: true, text: (row) => percent(row.share), value: (row) => row.share,
                node: (row) => shareCell(row.share),
            },
        ],
    });
    const big = dataTable({
        caption: 'Keys that take most room',
        empty: 'There are no keys here.',
        key: keyIdentity,
        columns: [
            keyColumn,
            { label: 'Takes', isNumber: true, text: (row) => bytes(row.bytes), value: (row) => row.bytes },
            { label: 'Value', isNumber: true, text: (row) => bytes(row.value_bytes), value: (row) => row.value_bytes },
            {
                label: 'Expires in', isNumber: true, value: (row) => row.expires_in_ms,
                text: (row) => (row.expires_in_ms === null ? 'never' : milliseconds(row.expires_in_ms)),
            },
        ],
    });

    context.every(HOT_PERIOD_MS, async (signal) => {
        const answer = await context.client.get('/hot', { count: SHOWN }, { signal });
        const part = answer.sampled_one_in === 1 ? 'each' : `one in ${count(answer.sampled_one_in)}`;
        setText(aboutHot, answer.is_counting === false
            ? `${answer.node} counts no keys: its insight.enabled is false, and true has it count.`
            : `${count(answer.seen)} uses seen by ${answer.node} in ${seconds(answer.since_seconds)}, `
            + `of which ${part} was counted. Older uses count less.`);
        hot.update(answer.keys);
    });
    context.every(BIG_PERIOD_MS, async (signal) => {
        const answer = await context.client.get('/big', { count: SHOWN }, { signal });
        setText(aboutBig, `The biggest of ${count(answer.looked_at)} items of the partitions that ${answer.node} leads.`);
        big.update(answer.keys);
    });
    return [element('div', { class: 'halves' },
        card('Hot keys', aboutHot, hot.node),
        card('Big keys', aboutBig, big.node))];
}

const keyColumn = {
    label: 'Key',
    isHeader: true,
    text: keyText,
    node(row) {
        const href = `#/browser?${new URLSearchParams(keyOnly(row))}`;
        return element('a', { class: 'key', href }, strange(keyText(row), KEY_CHARACTERS));
    },
};
