// The dialogs in which a key is set or deleted. They ask once more, and close only when it is done; what went wrong
// stands in them, with what the node says of the outcome.

import { keyText, toBase64, utf8 } from './bytes.js';
import { Problem } from './client.js';
import { element, strange } from './dom.js';
import { deleteItem, writeItem } from './item.js';

let numbers = 0;

/// Asks for a value and sets it. `key` is null for a key that is yet to be named, `item` null for one that is not
/// there; `done(key, answer)` hears of success.
export function openSetDialog({ client, key, item, done }) {
    const name = element('input', { autocomplete: 'off', spellcheck: 'false', maxlength: 65_536 });
    const start = startOf(item);
    const kind = element('select', {}, ...[['text', 'Text'], ['json', 'JSON'], ['base64', 'Bytes as base64']]
        .map(([value, label]) => element('option', { value, selected: value === start.kind }, label)));
    const value = element('textarea', { rows: 10, spellcheck: 'false', autocomplete: 'off' });
    value.value = start.text;
    const ttl = element('input', { inputmode: 'decimal', autocomplete: 'off', placeholder: 'none' });
    const keeps = element('input', { type: 'checkbox', onchange: () => { ttl.disabled = keeps.checked; } });
    const same = element('input', { type: 'checkbox', checked: item !== null });
    if (item?.ttl_seconds) {
        keeps.checked = true;
        ttl.disabled = true;
    }
    openDialog({
        title: key === null ? 'Set a key' : 'Set this key',
        action: 'Set',
        content: [
            key === null ? labelled('Key', name) : element('p', { class: 'key' }, strange(keyText(key))),
            labelled('Value is', kind),
            labelled('Value', value),
            labelled('Lifetime in seconds', ttl),
            item?.ttl_seconds ? element('label', { class: 'check' }, keeps, ' Keep the lifetime that it has') : null,
            item ? element('label', { class: 'check' }, same, ` Only if its version is still ${item.version}`) : null,
            item ? element('p', { class: 'quiet' }, 'A content type that it has is not kept.') : null,
        ],
        first: key === null ? name : value,
        async act() {
            const written = key ?? { key: name.value };
            const answer = await writeItem(client, {
                key: written, kind: kind.value, text: value.value, ttl_text: ttl.value,
                keepsTtl: keeps.checked, version: item !== null && same.checked ? item.version : null,
            });
            done(written, answer);
        },
    });
}

export function openDeleteDialog({ client, key, done }) {
    openDialog({
        title: 'Delete this key?',
        action: 'Delete',
        isDangerous: true,
        content: [
            element('p', { class: 'key' }, strange(keyText(key), 1000)),
            element('p', {}, 'Its value is gone for good.'),
        ],
        async act() {
            done(await deleteItem(client, key));
        },
    });
}

// A textarea changes carriage returns, and shows nothing of what is not text: such values are edited as bytes.
function startOf(item) {
    if (item === null) {
        return { kind: 'text', text: '' };
    }
    const text = utf8(item.bytes);
    if (text === null || /[\r\0]/.test(text)) {
        return { kind: 'base64', text: toBase64(item.bytes) };
    }
    return { kind: item.type === 'application/json' ? 'json' : 'text', text };
}

function labelled(text, field) {
    numbers += 1;
    field.id = `field_${numbers}`;
    return element('div', { class: 'field' }, element('label', { for: field.id }, text), field);
}

function openDialog({ title, action, content, act, first = null, isDangerous = false }) {
    const error = element('p', { class: 'error', role: 'alert' });
    const submit = element('button', { type: 'submit', class: isDangerous ? 'danger' : 'primary' }, action);
    const cancel = element('button', { type: 'button', onclick: () => node.close() }, 'Cancel');
    const form = element('form', {
        async onsubmit(event) {
            event.preventDefault();
            error.textContent = '';
            submit.disabled = true;
            try {
                await act();
                node.close();
            } catch (problem) {
                error.textContent = said(problem);
            }
            submit.disabled = false;
        },
    }, element('h2', {}, title), content, error, element('div', { class: 'actions' }, cancel, submit));
    const node = element('dialog', { 'aria-label': title, onclose: () => node.remove() }, form);
    document.body.append(node);
    node.showModal();
    (first ?? cancel).focus();
}

function said(problem) {
    if (!(problem instanceof Problem)) {
        return problem.name === 'Error' ? problem.message
            : 'The node does not answer: whether it was done is not known.';
    }
    if (problem.code === 'precondition_failed') {
        const current = problem.body.current_version;
        return current ? `It was changed meanwhile: its version is ${current} now. Nothing was done.`
            : 'It is not there any more. Nothing was done.';
    }
    return `${problem.title ? `${problem.title}: ` : ''}${problem.message}`;
}
