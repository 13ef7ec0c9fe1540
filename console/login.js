// The form for an API key. It hands the key over and keeps nothing; the field has no name and asks not to be
// remembered, so the key gets into no history of forms.

import { element } from './dom.js';

/// `onKey` is given what was typed; `message` says why the last one did not do, or is null.
export function loginForm(message, onKey) {
    const field = element('input', {
        id: 'api_key', type: 'password', required: true,
        autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false',
        maxlength: 1024, 'aria-describedby': 'login_message',
    });
    return element('form', {
        class: 'card login',
        autocomplete: 'off',
        onsubmit(event) {
            event.preventDefault();
            const key = field.value.trim();
            // Only such text fits into a header; anything else is no key of a node.
            if (/^[\x21-\x7e]+$/.test(key)) {
                onKey(key);
            }
            field.value = '';
        },
    },
    element('h1', {}, 'Log in'),
    element('p', {}, 'This node asks for an API key. It stays in this tab, until that is closed or you log out.'),
    element('p', { id: 'login_message', class: 'error', role: 'alert' }, message ?? ''),
    element('label', { for: 'api_key' }, 'API key'),
    field,
    element('button', { type: 'submit', class: 'primary' }, 'Log in'));
}
