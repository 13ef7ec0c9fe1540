// What a node is busy with: how long clients wait by what they asked, how other nodes answer it and follow it, how its
// threads and its memory are used. All of it is from the polls of /metrics/json.

import { card, cut, element, showFigure } from '../dom.js';
import { bytes, count, percent, rate, seconds } from '../format.js';
import { last } from '../history.js';
import { dataTable } from '../table.js';

export const title = 'Waits and peers';
export const letter = 'w';
export const needs = ['read', 'admin'];

// What each use of memory is, in the order in which it is shown.
const USES = {
    items: 'Keys, values and their records',
    holes: 'Free between records, for the next ones',
    tables: 'The tables by which keys are found',
    departures: 'Why keys left',
    buffers: 'Large requests and answers under way',
    log: 'Written, and not in the log yet',
    replication: 'Said to replicas, and not sent yet',
    other: 'Connections, code that runs, and what is counted by nobody',
    allocator_slack: 'Pages that the allocator has and nobody uses',
};

export function show(context) {
    const { history } = context;
    const answers = figures('How long clients wait', 'Nobody has asked for a key, or the node is by itself: then it waits for no other, and All figures has the latency of each command.', [
        words('Asked', (row) => `${row.command} (${row.protocol})`),
        words('Level', (row) => row.level),
        figure('Answers', (row) => [...row.series, 'count'], count),
        figure('p50', (row) => [...row.series, 'p50'], seconds),
        figure('p99', (row) => [...row.series, 'p99'], seconds),
        figure('p99.9', (row) => [...row.series, 'p999'], seconds),
    ]);
    const peers = figures('Other nodes, as this one has them', 'There are no others.', [
        { ...words('Node', (row) => row.key), node: (row) => cut(row.key) },
        figure('Questions answered', (row) => ['cluster', 'links', row.key, 'latency_seconds', 'count'], count),
        figure('p99', (row) => ['cluster', 'links', row.key, 'latency_seconds', 'p99'], seconds),
        figure('Not answered', (row) => ['cluster', 'links', row.key, 'failed'], count),
        figure('Entries behind', (row) => ['replication', 'peers', row.key, 'lag_entries'], count),
        figure('Behind for', (row) => ['replication', 'peers', row.key, 'lag_seconds'], seconds),
        figure('Replicas to align', (row) => ['replication', 'peers', row.key, 'to_follow'], count),
        figure('Queued', (row) => ['replication', 'peers', row.key, 'queue_bytes'], bytes),
    ]);
    const threads = figures('Data threads', 'The node tells of none.', [
        words('Thread', (row) => row.key),
        { label: 'Busy', isNumber: true, text: (row) => percent(row.busy), value: (row) => row.busy },
        figure('Late, p99', (row) => ['threads', row.key, 'delay_seconds', 'p99'], seconds),
        figure('Stalls', (row) => ['threads', row.key, 'stalls'], count),
    ]);
    const memory = figures('Memory', 'The node does not tell.', [
        words('For what', (row) => USES[row.key] ?? row.key),
        figure('Bytes', (row) => ['memory', 'by_use', row.key], bytes),
    ]);
    const totals = ['commits', 'openings', 'fences', 'adopted_terms'].map((name) => [
        context.figure(`replication.${name}`, count), ` ${name.replace('_', ' ')}`,
    ]);
    const commits = element('span', {});

    context.onPoll(() => {
        const { metrics } = history.latest;
        const found = (path) => path.reduce((at, part) => at?.[part], metrics);
        const rows = (keys) => keys.map((key) => ({ key, found }));
        answers.update(answerRows(metrics.answers ?? {}).map((row) => ({ ...row, found })));
        peers.update(rows(Object.keys(metrics.replication?.peers ?? {})));
        threads.update(rows(Object.keys(metrics.threads ?? {})).map((row) => ({
            ...row, busy: last(history.rates((at) => at.threads?.[row.key]?.busy_seconds)),
        })));
        memory.update(rows(Object.keys(USES).filter((use) => metrics.memory?.by_use?.[use] !== undefined)));
        commits.textContent = rate(last(history.rates((at) => at.replication?.commits)));
    });

    return [
        card('How long clients wait, by command and level', answers.node),
        card('Other nodes', peers.node, element('p', { class: 'totals' },
            'Partitions that this node leads: ', ...totals.flatMap((total) => [...total, ' · ']), commits, ' commits now')),
        element('div', { class: 'halves' }, card('Data threads', threads.node), card('Memory, by what it is for', memory.node)),
    ];
}

function answerRows(answers) {
    return Object.entries(answers).flatMap(([protocol, commands]) =>
        Object.entries(commands).flatMap(([command, levels]) => Object.keys(levels).map((level) => ({
            protocol, command, level, key: `${protocol} ${command} ${level}`,
            series: ['answers', protocol, command, level],
        }))));
}

function figures(caption, empty, columns) {
    return dataTable({ caption, empty, columns, key: (row) => row.key, size: 'short' });
}

function words(label, text) {
    return { label, isHeader: true, text };
}

// `found(path)` of a row has the figure that is at a place of /metrics/json; its members are not joined, as the name of a node may
// have dots.
function figure(label, path, format) {
    const value = (row) => row.found(path(row)) ?? null;
    return {
        label, isNumber: true, value, text: (row) => format(value(row)),
        node: () => element('span', { class: 'figure' }),
        mark: (cell, row) => showFigure(cell.firstElementChild, path(row).join('.'), value(row), format),
    };
}
