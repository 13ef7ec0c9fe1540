// The shortcuts and the dialog that lists them. They can be switched off, as letters by themselves get in the way of
// who speaks to the machine. While one types, or a dialog is open, none holds.

import { element } from './dom.js';

const STORED = 'henge.shortcuts';

// How long the letter after `g` may take.
const SEQUENCE_MS = 1500;

export function helpDialog(views) {
    const rows = [
        ...Object.values(views).map((view) => [['g', view.letter], view.title]),
        [['/'], 'Search in this view'],
        [['t'], 'Another theme'],
        [['?'], 'This list'],
        [['Esc'], 'Close a dialog'],
    ];
    const box = element('input', { type: 'checkbox', onchange: () => store(box.checked) });
    const close = element('button', { type: 'button', onclick: () => node.close() }, 'Close');
    const node = element('dialog', { 'aria-labelledby': 'help_title' },
        element('h2', { id: 'help_title' }, 'Keyboard shortcuts'),
        element('table', { class: 'shortcuts' }, element('thead', { class: 'unseen' }, element('tr', {},
            element('th', { scope: 'col' }, 'Keys'), element('th', { scope: 'col' }, 'What they do'))),
        element('tbody', {}, ...rows.map(([keys, text]) => element('tr', {},
            element('th', { scope: 'row' }, ...keys.flatMap((key, at) =>
                [at > 0 ? ' then ' : null, element('kbd', {}, key)])),
            element('td', {}, text))))),
        element('label', { class: 'check' }, box, ' Shortcuts of single letters'),
        element('div', { class: 'actions' }, close));
    return {
        node,
        open() {
            box.checked = areOn();
            node.showModal();
            close.focus();
        },
    };
}

export function listen({ views, help, search, theme }) {
    let prefix_ms = -Infinity;
    document.addEventListener('keydown', (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !areOn() || isBusy(event.target)) {
            return;
        }
        const follows = event.timeStamp - prefix_ms < SEQUENCE_MS;
        prefix_ms = -Infinity;
        const view = follows ? Object.keys(views).find((name) => views[name].letter === event.key) : undefined;
        if (view !== undefined) {
            location.hash = `#/${view}`;
        } else if (event.key === 'g') {
            prefix_ms = event.timeStamp;
        } else if (event.key === '/' && search() !== null) {
            search().focus();
            search().select();
        } else if (event.key === '?') {
            help.open();
        } else if (event.key === 't') {
            theme();
        } else {
            return;
        }
        event.preventDefault();
    });
}

function isBusy(target) {
    return document.querySelector('dialog[open]') !== null
        || target.closest?.('input, textarea, select, [contenteditable]') !== null;
}

function areOn() {
    try {
        return localStorage.getItem(STORED) !== 'off';
    } catch {
        return true;
    }
}

function store(isOn) {
    try {
        localStorage.setItem(STORED, isOn ? 'on' : 'off');
    } catch {
        // A browser that keeps nothing has shortcuts.
    }
}
