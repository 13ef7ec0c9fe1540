// The node at a glance: charts of the last five minutes, its health, and the members. Rates are by difference of two
// polls, and what stands below a chart is what the node counts since its start. It has no say in anything.

import { lineChart } from '../chart.js';
import { bytes, compact, count, percent, rate, seconds, wholePercent } from '../format.js';
import { card, element } from '../dom.js';
import { figure, requests } from '../history.js';
import { memberRows, membersTable } from '../members.js';
import { CAUSES } from '../causes.js';

export const title = 'Overview';
export const letter = 'o';
export const needs = ['read', 'admin'];

// Quantiles of the last seconds follow from buckets, which only the text of /metrics has.
export const needsLatencies = true;

const READY_PERIOD_MS = 5000;
const STATUS_PERIOD_MS = 4000;

// What a check of /ready is about.
const CHECKS = {
    recovered: 'What was on the disk is loaded',
    in_cluster: 'In its cluster',
    not_drained: 'Not drained',
    log_writable: 'The log can be written',
};

export function show(context) {
    const { history } = context;
    const table = membersTable();
    const health = element('ul', { class: 'checks' });
    const amount = (path, word, format = count) => [context.figure(path, format), ` ${word}`];
    const sum = (metrics, ...paths) => paths.reduce((all, path) => all + (figure(metrics, path) ?? 0), 0);
    const evicted = ['evictions.size', 'evictions.items', 'evictions.pressure'];

    const charts = [
        chartCard('Hit ratio', {
            series: ['Hits of all reads'], format: percent, scale: wholePercent, top: 1,
            totals: [...amount('hits', 'hits'), ' · ', ...amount('misses', 'missed')],
            points: () => [history.shares((at) => at.hits, (at) => at.hits + at.misses)],
        }),
        chartCard('Operations', {
            series: ['Redis protocol', 'HTTP'], format: rate,
            totals: [...amount('sets', 'values stored'), ' · ', ...amount('deletes', 'deleted')],
            points: () => [history.rates((at) => requests(at).redis), history.rates((at) => requests(at).http)],
        }),
        chartCard('Latency', {
            series: ['p50', 'p99'], format: seconds,
            totals: ['of requests for keys, as this node answered them'],
            points: () => [history.quantiles(0.5), history.quantiles(0.99)],
        }),
        chartCard('Memory', {
            series: ['Charged', 'Resident'], format: bytes, base: 1024,
            totals: [...amount('memory.charged_bytes', 'of', bytes), ' ',
                ...amount('memory.limit_bytes', 'allowed · ', bytes), memoryShare(context)],
            points: () => [
                history.values((at) => at.memory?.charged_bytes),
                history.values((at) => at.memory?.rss_bytes),
            ],
        }),
        chartCard('Items', {
            series: ['Items'], format: count, scale: compact,
            totals: [...amount('items', 'items'), ' · ', ...amount('expirations', 'expired')],
            points: () => [history.values((at) => at.items)],
        }),
        chartCard('Evictions', {
            series: ['Evicted', 'Expired'], format: rate,
            totals: [...amount('evictions.size', 'for size'), ' · ', ...amount('evictions.items', 'for items'), ' · ',
                ...amount('evictions.pressure', 'for pressure')],
            points: () => [history.rates((at) => sum(at, ...evicted)), history.rates((at) => at.expirations)],
        }),
        chartCard('Misses a second, by cause', {
            series: CAUSES.map((cause) => cause.name), format: compact,
            totals: [element('a', { href: '#/misses' }, 'What the causes mean')],
            points: () => CAUSES.map(({ id }) => history.rates((at) => at.misses_by_cause?.[id])),
        }),
        chartCard('Connections', {
            series: ['Open'], format: count,
            totals: [...amount('connections.open', 'open'), ' · ', ...amount('connections.accepted', 'taken'), ' · ',
                ...amount('connections.refused', 'refused')],
            points: () => [history.values((at) => at.connections?.open)],
        }),
    ];

    context.onPoll(() => charts.forEach((one) => one.draw(history.latest.at_ms)));
    context.every(READY_PERIOD_MS, async (signal) => {
        const ready = await context.client.get('/ready', {}, { signal, accepted: [503] });
        health.replaceChildren(...checks(ready).map(checkLine));
    });
    context.every(STATUS_PERIOD_MS, async (signal) => {
        table.update(memberRows(await context.client.get('/cluster/status', {}, { signal })));
    });
    return [
        element('div', { class: 'charts' }, charts.map((one) => one.node)),
        element('div', { class: 'columns' }, card('Health', health), card('Members', table.node)),
    ];

}

function chartCard(label, { series, format, scale, totals, points, top, base }) {
    const chart = lineChart({
        label, format, scale, top, base, series: series.map((name, at) => ({ name, style: at + 1 })),
    });
    return {
        node: card(label, chart.node, element('p', { class: 'totals' }, totals)),
        draw: (now_ms) => chart.draw(points(), now_ms),
    };
}

function memoryShare(context) {
    const node = element('span', { class: 'figure' });
    context.onPoll(() => {
        const { charged_bytes, limit_bytes } = context.history.latest.metrics.memory ?? {};
        node.textContent = limit_bytes > 0 ? `${percent(charged_bytes / limit_bytes)} used` : 'no limit';
    });
    return node;
}

// A node that is not ready says why in `why` or `waits`, beside the checks or without them.
function checks(ready) {
    const waits = Array.isArray(ready.waits) ? ready.waits.map(String).join('; ') : ready.waits;
    const progress = typeof ready.progress === 'number' ? percent(ready.progress) : null;
    const isReady = ready.status === 'ready';
    const more = ready.why ?? waits ?? ready.failure ?? progress;
    const why = [isReady ? null : ready.status, more].filter(Boolean).join(': ');
    const first = { name: 'Takes requests', ok: isReady, why };
    return [first, ...(ready.checks ?? []).map((check) => ({ ...check, name: CHECKS[check.name] ?? check.name }))];
}

function checkLine({ name, ok, why }) {
    return element('li', { class: ok ? 'check-ok' : 'check-bad' },
        element('span', { 'aria-hidden': 'true', class: 'sign' }, ok ? '✓' : '✕'),
        element('span', {}, element('b', {}, `${name}: `), ok ? 'yes' : 'no', why ? ` – ${why}` : ''));
}
