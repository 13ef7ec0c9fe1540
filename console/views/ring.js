// The ring: who leads which partitions, how far those are that move, and where a key lives. It moves nothing itself.

import { card, cut, element, facts, setText, strange } from '../dom.js';
import { bytes, bytesRate, count, percent, plural } from '../format.js';
import { memberRows, membersTable, stateText } from '../members.js';
import { leaders, ringPicture } from '../ring.js';
import { keyText } from '../bytes.js';
import { dataTable } from '../table.js';

export const title = 'Ring and members';
export const letter = 'r';
export const needs = ['read', 'admin'];

const STATUS_PERIOD_MS = 2000;
const SLOTS = 16_384;

export function show(context) {
    let status = null;
    let picked = null;
    const picture = ringPicture({ onPick: pick });
    const members = membersTable({ onPick: (id) => pick(id === picked ? null : id) });
    const runs = runsTable();
    const only = element('p', { class: 'quiet' });
    const moving = element('div');
    const standing = element('p', { class: 'quiet' });
    const lookup = keyLookup(context, picture);

    context.every(STATUS_PERIOD_MS, async (signal) => {
        status = await context.client.get('/cluster/status', {}, { signal });
        redraw();
    });

    function pick(id) {
        picked = id;
        redraw();
    }

    function redraw() {
        if (status === null) {
            return;
        }
        if (!status.members.some((member) => member.id === picked)) {
            picked = null;
        }
        picture.draw(status);
        picture.pick(picked);
        members.update(memberRows(status, picked));
        const all = runRows(status);
        runs.update(picked === null ? all : all.filter((run) => run.member?.id === picked));
        const name = status.members.find((member) => member.id === picked)?.name;
        setText(only, picked === null ? '' : `Only ${name}'s are shown; press its stone again for all.`);
        setText(standing, standingText(status));
        moving.replaceChildren(...progressLines(status));
    }

    return [
        standing,
        element('div', { class: 'ring-columns' },
            element('section', { class: 'card ring-card' }, element('h2', {}, 'Partitions by leader'), picture.node),
            element('div', {},
                card('Members', members.node),
                element('div', { class: 'halves' },
                    card('Moves and copies', moving),
                    card('Where does a key live?', ...lookup)))),
        card('Partitions', only, runs.node),
    ];
}

function standingText(status) {
    const words = {
        member: status.leader ? `Control leader: ${status.leader}.`
            : 'No control leader is known: nothing can be agreed on.',
        forming: 'The node is in no cluster yet.',
        refused: 'The node can be in no cluster until its operator changes something.',
    };
    const more = [status.why, ...[status.waits ?? []].flat().map(String)].filter(Boolean).join('; ');
    const text = words[status.standing] ?? words.member;
    return [text, more, status.cluster ? `Cluster ${status.cluster}.` : ''].filter(Boolean).join(' ');
}

function runRows(status) {
    const slots = SLOTS / status.partitions.count;
    const runs = [];
    leaders(status).forEach((id, partition) => {
        const before = runs.at(-1);
        if (before?.id === id) {
            before.last = partition;
        } else {
            runs.push({ id, first: partition, last: partition });
        }
    });
    return runs.map((run) => ({
        ...run,
        slots: `${run.first * slots}–${(run.last + 1) * slots - 1}`,
        member: status.members.find((member) => member.id === run.id) ?? null,
    }));
}

function runsTable() {
    return dataTable({
        caption: 'Runs of partitions and who leads them',
        filter: 'Filter partitions',
        size: 'short',
        empty: 'There are no partitions yet.',
        key: (run) => run.first,
        sort: [0, true],
        columns: [
            {
                label: 'Partitions', isHeader: true, value: (run) => run.first,
                text: (run) => (run.first === run.last ? String(run.first) : `${run.first}–${run.last}`),
            },
            { label: 'Slots', isWhole: true, text: (run) => run.slots, value: (run) => run.first },
            { label: 'Leader', text: leaderName, node: (run) => cut(leaderName(run)) },
            { label: 'State', text: (run) => (run.member ? stateText(run.member) : '–') },
        ],
    });
}

function leaderName(run) {
    return run.member?.name ?? 'nobody';
}

function progressLines({ moves, copies }) {
    const lines = [];
    if (moves && moves.are_planned === false) {
        lines.push(element('p', {}, 'Which partitions move is being reckoned.'));
    } else if (!moves || moves.partitions_total === 0) {
        lines.push(element('p', {}, 'No partition moves: all is where it should be.'));
    } else {
        lines.push(progress('Partitions moved', moves.partitions_done, moves.partitions_total,
            `${count(moves.partitions_moving)} under way`));
    }
    if (moves?.partitions_to_hand_over > 0) {
        const text = `${plural(moves.partitions_to_hand_over, 'partition')} to be led by another member.`;
        lines.push(element('p', {}, text));
    }
    if (copies) {
        lines.push(progress('Replicas of this node that are aligned', copies.replicas_aligned, copies.replicas, ''));
        const sent = `${bytes(copies.sent_bytes)} sent, ${bytesRate(copies.sent_bytes_per_second)}`;
        lines.push(element('p', { class: 'quiet' },
            `Copies that this node sends: ${count(copies.under_way)} under way, `
            + `${count(copies.waiting)} waiting, ${sent}.`));
    }
    return lines;
}

function progress(label, done, total, more) {
    const part = percent(total > 0 ? done / total : 1);
    const text = [`${count(done)} of ${count(total)} (${part})`, more].filter(Boolean).join(', ');
    return element('div', { class: 'progress' },
        element('span', {}, label), element('b', {}, text),
        element('progress', { max: Math.max(total, 1), value: total > 0 ? done : 1, 'aria-label': label }, text));
}

function keyLookup(context, picture) {
    const field = element('input', { id: 'ring_key', type: 'search', autocomplete: 'off', spellcheck: 'false' });
    const answer = element('div', { 'aria-live': 'polite' });
    let newest = 0;
    async function ask(query) {
        const question = ++newest;
        const isOver = () => question !== newest || context.signal.aborted;
        answer.replaceChildren();
        picture.mark(null);
        try {
            const found = await context.client.get('/cluster/ring', query, { signal: context.signal });
            if (isOver()) {
                return;
            }
            picture.mark(found.partition);
            answer.replaceChildren(...whereItLives(found));
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
    }, element('label', { for: 'ring_key' }, 'Key'), field, element('button', { type: 'submit' }, 'Find'));
    return [form, answer];
}

function whereItLives(found) {
    const member = (one) => `${one.name} at ${one.address}, ${one.state}`;
    return [facts([
        ['Key', strange(keyText(found))],
        ['Slot', count(found.slot)],
        ['Partition', count(found.partition)],
        ['Hash tag', found.hash_tag === null ? 'none' : strange(String(found.hash_tag))],
        ['Leader', found.holder ? member(found.holder) : 'nobody at the moment'],
        ['Replicas', (found.replicas ?? []).map(member).join('; ') || 'none known'],
        ['Why', found.why ?? ''],
    ])];
}
