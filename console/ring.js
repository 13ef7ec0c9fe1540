// Draws the ring: each partition a stone, four deep, in the colour of the member that leads it. It is a picture for who
// sees it; the tables beside it say the same in words. It reckons no placement: who leads what comes from
// /cluster/status.

import { element, setText, shape } from './dom.js';
import { count } from './format.js';

const SIZE = 420;
const CENTRE = SIZE / 2;
const OUTSIDE = 204;
const STONE_DEPTH = 17;
const GAP = 3;

// Up to so many members have colours of the palette, which colour-blind readers tell apart; more have generated ones.
const PALETTE = 7;

// The golden angle: however many hues are drawn, each lies far from those just before it.
const GOLDEN_ANGLE = 137.508;

/// Who leads each partition, as ids by partition, of the runs of /cluster/status.
export function leaders(status) {
    const ids = new Array(status.partitions?.count ?? 0).fill(null);
    for (const [first, last, id] of status.partitions?.owners ?? []) {
        ids.fill(id, first, last + 1);
    }
    return ids;
}

/// What a member is coloured by: its place among all by id, so that it keeps its colour while states change.
export function paint(node, members, id) {
    const ids = members.map((member) => member.id).sort((one, other) => one - other);
    const place = ids.indexOf(id);
    if (place < 0) {
        node.setAttribute('class', 'stone nobody');
    } else if (ids.length <= PALETTE) {
        node.setAttribute('class', `stone series-${place + 1}`);
    } else {
        node.setAttribute('class', 'stone');
        node.setAttribute('fill', `hsl(${(place * GOLDEN_ANGLE) % 360} 48% ${[40, 52, 64][place % 3]}%)`);
    }
}

/// `onPick` hears the id of the member whose stone is clicked.
export function ringPicture({ onPick }) {
    const stones = shape('g');
    const marked = shape('path', { class: 'stone-mark', hidden: true });
    const texts = [-14, 10, 32].map((y, at) => shape('text', {
        x: CENTRE, y: CENTRE + y, 'text-anchor': 'middle', class: at === 0 ? 'ring-number' : 'ring-word',
    }));
    const box = { class: 'ring', viewBox: `0 0 ${SIZE} ${SIZE}`, role: 'img' };
    const picture = shape('svg', box, stones, marked, ...texts);
    const reading = element('p', { class: 'ring-reading quiet' });
    let state = { ids: [], members: [], drawn: '' };
    let picked = null;
    let wanted = null;

    function draw(status) {
        const ids = leaders(status);
        const members = status.members ?? [];
        const drawn = JSON.stringify([ids, members.map((member) => [member.id, member.state])]);
        setText(texts[0], count(ids.length));
        setText(texts[1], 'partitions');
        setText(texts[2], `epoch ${count(status.epoch)}`);
        picture.setAttribute('aria-label', `${ids.length} partitions by leader; the tables beside it say the same`);
        if (drawn !== state.drawn) {
            state = { ids, members, drawn };
            stones.replaceChildren(...[...new Set(ids)].map((id) => memberStones(id)));
            pick(picked);
            mark(wanted);
            tell(null);
        }
    }

    function memberStones(id) {
        const member = state.members.find((one) => one.id === id);
        const node = shape('path', {
            d: state.ids.map((owner, at) => (owner === id ? stone(at, state.ids.length) : '')).join(''),
            'data-member': id ?? '',
        });
        paint(node, state.members, id);
        node.classList.toggle('is-down', member?.state === 'down');
        return node;
    }

    function pick(id) {
        picked = id;
        for (const node of stones.children) {
            node.classList.toggle('is-dim', id !== null && node.dataset.member !== String(id));
        }
    }

    function mark(partition) {
        wanted = partition;
        const isThere = partition !== null && partition < state.ids.length;
        marked.toggleAttribute('hidden', !isThere);
        if (isThere) {
            marked.setAttribute('d', stone(partition, state.ids.length));
        }
    }

    function tell(partition) {
        const member = partition === null ? null : state.members.find((one) => one.id === state.ids[partition]);
        setText(reading, partition === null ? 'Point at a stone to read its partition; click it to pick its member.'
            : `Partition ${partition}: ${member ? `${member.name}, ${member.state}` : 'nobody leads it'}`);
    }

    picture.addEventListener('pointermove', (event) => tell(partitionAt(event)));
    picture.addEventListener('pointerleave', () => tell(null));
    picture.addEventListener('click', (event) => {
        const partition = partitionAt(event);
        const id = partition === null ? null : state.ids[partition];
        onPick(id === picked ? null : id);
    });

    function partitionAt(event) {
        const box = picture.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * SIZE - CENTRE;
        const y = ((event.clientY - box.top) / box.height) * SIZE - CENTRE;
        const { rows, columns } = layout(state.ids.length);
        const row = Math.floor((OUTSIDE - Math.hypot(x, y)) / (STONE_DEPTH + GAP));
        const turn = (Math.atan2(x, -y) / (2 * Math.PI) + 1) % 1;
        const partition = Math.floor(turn * columns) * rows + row;
        return row >= 0 && row < rows && partition < state.ids.length ? partition : null;
    }

    return { node: element('div', {}, picture, reading), draw, pick, mark };
}

// As few rings as leave a stone wide enough to be seen.
function layout(partitions) {
    const rows = partitions > 512 ? 4 : partitions > 128 ? 2 : 1;
    return { rows, columns: Math.ceil(partitions / rows) };
}

function stone(partition, partitions) {
    const { rows, columns } = layout(partitions);
    const outer = OUTSIDE - (partition % rows) * (STONE_DEPTH + GAP);
    const inner = outer - STONE_DEPTH;
    const column = Math.floor(partition / rows);
    const [from, to] = [(column + 0.12) / columns, (column + 0.88) / columns];
    const corner = (radius, turn) => {
        const angle = turn * 2 * Math.PI;
        return `${(CENTRE + radius * Math.sin(angle)).toFixed(2)} ${(CENTRE - radius * Math.cos(angle)).toFixed(2)}`;
    };
    return `M${corner(outer, from)}L${corner(outer, to)}L${corner(inner, to)}L${corner(inner, from)}Z`;
}
