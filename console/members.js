// The members of the cluster as a table, for the overview and the ring. States stand in words. It changes nothing:
// members are added, drained and removed with `henge cluster`.

import { cut, element, shape } from './dom.js';
import { bytes, count, rate } from './format.js';
import { paint } from './ring.js';
import { dataTable } from './table.js';

const SIGNS = { up: '●', aligning: '◐', down: '✕', leaving: '→' };

/// `onPick` hears the member whose colour is pressed; without it there are no colours. Rows are members with `status`.
export function membersTable({ onPick = null } = {}) {
    return dataTable({
        caption: 'Members of the cluster',
        filter: 'Filter members',
        size: 'short',
        empty: 'No members are known.',
        key: (row) => row.member.id,
        sort: [onPick ? 1 : 0, true],
        columns: [
            ...(onPick ? [swatches(onPick)] : []),
            {
                label: 'Name', isHeader: true, isWhole: true,
                text: name, value: ({ member }) => member.name, node: nameCell,
            },
            { label: 'State', text: state, node: (row) => badge(row.member) },
            figureColumn('Leads', 'partitions', count),
            figureColumn('Holds', 'holds_partitions', count),
            figureColumn('Ops/s', 'operations_per_second', rate),
            figureColumn('Memory', 'memory_bytes', bytes),
            figureColumn('Queued', 'queue_bytes', bytes),
            figureColumn('Weight', 'weight', count),
            { label: 'Address', isWhole: true, text: ({ member }) => member.address ?? '' },
        ],
    });
}

export function memberRows(status, picked = null) {
    return (status.members ?? []).map((member) => ({ member, status, isPicked: member.id === picked }));
}

/// The state of a member in words, as this node has it.
export function stateText(member) {
    const isCutOff = member.is_reachable === false && member.state !== 'down';
    return isCutOff ? `${member.state}, not reachable` : member.state;
}

function state({ member }) {
    return stateText(member);
}

export function badge(member) {
    const kind = member.is_reachable === false ? 'down' : member.state;
    return element('span', { class: `state state-${kind}` },
        element('span', { 'aria-hidden': 'true' }, `${SIGNS[kind] ?? '○'} `), stateText(member));
}

function name(row) {
    return [row.member.name, ...notes(row)].join(', ');
}

function notes({ member, status }) {
    return [member.is_me ? 'this node' : '', member.name === status.leader ? 'control leader' : '']
        .filter((note) => note !== '');
}

function nameCell(row) {
    return element('span', {}, consoleLink(row), ...notes(row).map((note) => element('span', { class: 'tag' }, note)));
}

function figureColumn(label, field, format) {
    return {
        label,
        isNumber: true,
        value: ({ member }) => member[field] ?? null,
        text: ({ member }) => format(member[field]),
    };
}

function swatches(onPick) {
    return {
        label: 'Show',
        // Colours depend on how many members there are.
        text: ({ member, status }) => `${member.id} of ${status.members.length}`,
        value: ({ member }) => member.id,
        node: ({ member, status }) => {
            const stone = shape('rect', { x: 1, y: 1, width: 10, height: 14, rx: 2 });
            paint(stone, status.members, member.id);
            return element('button', {
                type: 'button', class: 'swatch-button', 'aria-label': `Show the partitions of ${member.name}`,
                onclick: () => onPick(member.id),
            }, shape('svg', { viewBox: '0 0 12 16', width: 12, height: 16, 'aria-hidden': 'true' }, stone));
        },
        mark: (cell, row) => cell.firstElementChild.setAttribute('aria-pressed', String(row.isPicked)),
    };
}

// Its own console, unless this is it. An address is what another node says of itself: only a host and a port become a
// link.
function consoleLink({ member }) {
    if (member.is_me || !/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/.test(member.address ?? '')) {
        return cut(member.name);
    }
    const href = `${location.protocol}//${member.address}/console/`;
    return element('a', { class: 'cut', href, rel: 'noreferrer', title: `The console of ${member.name}` }, member.name);
}
