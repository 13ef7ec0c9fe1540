// Why reads find nothing: causes over time, and the cause of one key. It knows only what the node tells; a node that
// has forgotten a key may only guess, and then the answer says so.

import { lineChart } from '../chart.js';
import { CAUSES, causeName } from '../causes.js';
import { card, element, facts, shareCell, showFigure, strange } from '../dom.js';
import { count, milliseconds, percent, rate, seconds } from '../format.js';
import { last } from '../history.js';
import { keyText } from '../bytes.js';
import { dataTable } from '../table.js';

export const title = 'Misses';
export const letter = 'm';
export const needs = ['read', 'admin'];

export function show(context) {
    const { history } = context;
    const chart = lineChart({
        label: 'Misses a second by cause', format: rate,
        series: CAUSES.map(({ name }, at) => ({ name, style: at + 1 })),
    });
    const untold = element('p', { class: 'quiet', hidden: true }, 'This node does not tell the causes of its misses.');
    const causes = causesTable();
    const evictions = figuresTable('Evictions by what they were for', 'What for');
    const ages = figuresTable('Evictions by the age of what was evicted', 'For what, and its age');
    const agesCard = card('Evictions by age', ages.node);

    context.onPoll(() => {
        const { metrics, at_ms } = history.latest;
        const lines = CAUSES.map(({ id }) => history.rates((at) => at.misses_by_cause?.[id]));
        untold.hidden = metrics.misses_by_cause !== undefined;
        chart.draw(lines, at_ms);
        const all = CAUSES.reduce((sum, { id }) => sum + (metrics.misses_by_cause?.[id] ?? 0), 0);
        causes.update(CAUSES.map((cause, at) => {
            const amount = metrics.misses_by_cause?.[cause.id] ?? null;
            return { ...cause, amount, share: all > 0 ? amount / all : null, rate: last(lines[at]) };
        }));
        evictions.update(leaves('evictions', metrics.evictions));
        const byAge = Object.entries(metrics.evictions_by_age ?? {}).flatMap(([cause, of]) =>
            leaves(`evictions_by_age.${cause}.counts`, of.counts)
                .filter((row) => row.amount > 0)
                .map((row) => ({ ...row, name: `${cause}, ${row.name === 'inf' ? 'older' : `up to ${seconds(Number(row.name))}`}` })));
        agesCard.hidden = byAge.length === 0;
        ages.update(byAge);
    });

    return [
        card('Misses by cause', untold, chart.node, causes.node),
        card('Why did this miss?', ...whyForm(context)),
        element('div', { class: 'halves' }, card('Evictions', evictions.node), agesCard),
    ];
}

function causesTable() {
    return dataTable({
        caption: 'Misses by cause since the start',
        empty: 'There are no figures yet.',
        key: (row) => row.id,
        columns: [
            { label: 'Cause', isHeader: true, text: (row) => row.name },
            figureColumn('Misses', (row) => `misses_by_cause.${row.id}`),
            {
                label: 'Share', isNumber: true, text: (row) => percent(row.share), value: (row) => row.share,
                node: (row) => shareCell(row.share),
            },
            { label: 'Now', isNumber: true, text: (row) => rate(row.rate), value: (row) => row.rate },
            { label: 'What it means', isProse: true, text: (row) => row.text },
        ],
    });
}

function figuresTable(caption, label) {
    return dataTable({
        caption,
        empty: 'There are none.',
        key: (row) => row.path,
        columns: [
            { label, isHeader: true, text: (row) => row.name },
            figureColumn('Evicted', (row) => row.path),
        ],
    });
}

function figureColumn(label, path) {
    return {
        label, isNumber: true, text: (row) => count(row.amount), value: (row) => row.amount,
        node: () => element('span', { class: 'figure' }),
        mark: (cell, row) => showFigure(cell.firstElementChild, path(row), row.amount, count),
    };
}

// All numbers below a place of /metrics/json, however deep.
function leaves(path, value, name = '') {
    if (typeof value === 'number') {
        return [{ path, name: name.replaceAll('_', ' '), amount: value }];
    }
    return Object.entries(value ?? {}).flatMap(([part, inner]) =>
        leaves(`${path}.${part}`, inner, name === '' ? part : `${name}, ${part}`));
}

function whyForm(context) {
    const field = element('input', {
        id: 'why_key', type: 'search', 'data-search': true, autocomplete: 'off', spellcheck: 'false',
        disabled: !context.may('read'),
    });
    const answer = element('div', { 'aria-live': 'polite' });
    let newest = 0;
    async function ask(query) {
        const question = ++newest;
        const isOver = () => question !== newest || context.signal.aborted;
        answer.replaceChildren();
        try {
            const why = await context.client.post('/why', JSON.stringify(query), { signal: context.signal });
            if (!isOver()) {
                answer.replaceChildren(...explanation(why));
            }
        } catch (error) {
            if (!isOver()) {
                answer.replaceChildren(context.refusal(error));
            }
        }
    }
    if (context.parameters.has('key')) {
        field.value = context.parameters.get('key');
        ask({ key: field.value });
    } else if (context.parameters.has('key_base64')) {
        ask({ key_base64: context.parameters.get('key_base64') });
    }
    const form = element('form', {
        class: 'inline-form',
        onsubmit(event) {
            event.preventDefault();
            ask({ key: field.value });
        },
    }, element('label', { for: 'why_key' }, 'Key'), field,
    element('button', { type: 'submit', disabled: !context.may('read') }, 'Ask'),
    context.may('read') ? null : element('span', { class: 'reason' }, 'needs the permission read'));
    return [form, answer];
}

function explanation(why) {
    const ago = (value_ms) => (value_ms === null || value_ms === undefined ? 'unknown' : milliseconds(value_ms));
    const evicted = why.cause === 'evicted' ? [
        ['Policy', why.policy ?? 'unknown'],
        ['Evicted for', why.evicted_for ?? 'unknown'],
    ] : [];
    return [element('p', { class: 'answer' }, strange(why.text ?? '', 1000)), facts([
        ['Key', strange(keyText(why))],
        ['Is there', why.is_there ? 'yes' : 'no'],
        ['Cause', why.is_there ? 'none, as it is there' : why.cause === null ? 'not counted: insight.enabled is false' : causeName(why.cause)],
        ['Certain', why.is_certain ? 'yes' : 'no: it is the likeliest cause, and not the only one'],
        ...evicted,
        ...(why.is_there || why.cause === 'never_set' ? [] : [['It left', why.left_ago_ms === null ? 'unknown' : `${ago(why.left_ago_ms)} ago`]]),
        ['Its age', ago(why.age_ms)],
        ['Remembered for', ago(why.remembered_ms)],
        ['Asked', `${why.node}, of the partition ${why.partition}`],
    ])];
}
