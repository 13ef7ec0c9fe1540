// The keys of the cache: a list by prefix, page by page, and the item of one. What is read counts as a use of the key;
// what may not be done here cannot be pressed, and says why.

import { fromBase64, hexDump, keyBytes, keyIdentity, keyOnly, keyText, utf8, withoutTornEnd } from '../bytes.js';
import { card, element, facts, pieces, setText, strange } from '../dom.js';
import { bytes, count, plural, seconds, time } from '../format.js';
import { READ_BYTES, readItem } from '../item.js';
import { openDeleteDialog, openSetDialog } from '../item_dialogs.js';

export const title = 'Keys and values';
export const letter = 'b';
export const needs = ['read', 'write'];

const PAGE_KEYS = 100;

// A scan may answer pages with few keys, or none. After so many the reader decides whether it goes on.
const MOST_PAGES = 20;

// More of a value is not shown as bytes, nor with more unseen characters than this: each is an element.
const DUMP_BYTES = 16_384;
const ESCAPES = 2000;

export function show(context) {
    const { client, signal } = context;
    let parameters = context.parameters;
    let scan = null;

    const field = element('input', {
        id: 'prefix', type: 'search', 'data-search': true, autocomplete: 'off', spellcheck: 'false', maxlength: 60_000,
    });
    const list = element('ul', { class: 'keys' });
    const about = element('p', { class: 'quiet', 'aria-live': 'polite' });
    const more = element('button', { type: 'button', hidden: true, onclick: () => readOn() }, 'More keys');
    const listTrouble = element('div');
    const item = element('div', { 'aria-live': 'off' });
    const mayRead = context.may('read');
    const refusedRead = mayRead ? null : 'needs the permission read';
    const form = element('form', {
        class: 'inline-form',
        onsubmit(event) {
            event.preventDefault();
            go({ prefix: field.value }, true);
        },
    },
    element('label', { for: 'prefix' }, 'Prefix or key'), field,
    button('List keys', 'submit', null, refusedRead),
    button('Open this key', 'button', () => go({ prefix: field.value, key: field.value }), refusedRead),
    button('Set a key…', 'button', () => setNew(), context.may('write') ? null : 'needs the permission write'));

    // The address says what is shown, so that it can be gone back to and sent on.
    function go(given, again = false) {
        const hash = `#/browser?${new URLSearchParams(given)}`;
        if (location.hash === hash) {
            follow(new URLSearchParams(given), again);
        } else {
            location.hash = hash;
        }
    }

    function follow(given, again = false) {
        const before = parameters;
        parameters = given;
        const prefix = given.get('prefix') ?? '';
        if (scan === null || again || prefix !== scan.prefix) {
            field.value = prefix;
            begin(prefix);
        }
        const key = keyOf(given);
        const old = keyOf(before);
        if (again || key === null || old === null || keyIdentity(key) !== keyIdentity(old)) {
            open(key);
            // Below the list, on a narrow screen, it would not be seen that something has opened.
            if (key !== null && !again) {
                item.parentElement?.scrollIntoView({ block: 'nearest' });
            }
        }
    }

    function begin(prefix) {
        scan = { prefix, cursor: '0', seen: new Set(), isWhole: false };
        list.replaceChildren();
        more.hidden = true;
        if (mayRead) {
            readOn();
        } else {
            setText(about, 'Listing keys needs the permission read.');
        }
    }

    async function readOn() {
        const mine = scan;
        more.disabled = true;
        listTrouble.replaceChildren();
        setText(about, 'Looking for keys…');
        try {
            for (let pages = 0, found = 0; pages < MOST_PAGES && found < PAGE_KEYS && !mine.isWhole; pages += 1) {
                const query = { prefix: mine.prefix || null, cursor: mine.cursor, limit: PAGE_KEYS };
                const page = await client.get('/keys', query, { signal });
                if (mine !== scan) {
                    return;
                }
                found += append(page);
                mine.cursor = page.cursor;
                mine.isWhole = page.cursor === '0';
            }
        } catch (error) {
            if (!signal.aborted && mine === scan) {
                listTrouble.replaceChildren(context.refusal(error));
            }
        }
        if (mine === scan) {
            more.disabled = false;
            more.hidden = mine.isWhole;
            setText(about, `${plural(mine.seen.size, 'key')}${mine.isWhole ? ', and no more' : ' so far'}`
                + `${mine.prefix === '' ? '.' : ' that begin so.'}`);
        }
    }

    function append(page) {
        const keys = [...(page.keys ?? []).map((key) => ({ key })),
            ...(page.keys_base64 ?? []).map((key_base64) => ({ key_base64 }))];
        let found = 0;
        for (const key of keys) {
            const identity = keyIdentity(key);
            // A scan may give a key twice.
            if (!scan.seen.has(identity)) {
                scan.seen.add(identity);
                list.append(line(key, identity));
                found += 1;
            }
        }
        return found;
    }

    function line(key, identity) {
        const link = element('a', { class: 'key', href: hashOf(key) }, strange(keyText(key)),
            key.key_base64 === undefined ? null : element('span', { class: 'tag' }, 'bytes'));
        link.toggleAttribute('aria-current', isShown(key));
        return element('li', { 'data-key': identity }, link);
    }

    function hashOf(key) {
        return `#/browser?${new URLSearchParams({ prefix: scan?.prefix ?? '', ...keyOnly(key) })}`;
    }

    async function open(key) {
        for (const node of list.children) {
            const isOpen = key !== null && node.dataset.key === keyIdentity(key);
            node.firstElementChild.toggleAttribute('aria-current', isOpen);
        }
        if (key === null) {
            item.replaceChildren(element('p', { class: 'quiet' }, 'Choose a key to see its item.'));
            return;
        }
        if (!mayRead) {
            const reason = element('p', {}, 'Reading it needs the permission read.');
            item.replaceChildren(...heading(key), reason, actions(key, null));
            return;
        }
        item.replaceChildren(...heading(key), element('p', { class: 'quiet' }, 'Reading…'));
        try {
            const found = await readItem(client, key, signal);
            if (isShown(key) && found === null) {
                item.replaceChildren(...heading(key), missing(key), actions(key, null));
            } else if (isShown(key)) {
                item.replaceChildren(...heading(key), actions(key, found), itemFacts(key, found), ...valueNodes(found));
            }
        } catch (error) {
            if (!signal.aborted && isShown(key)) {
                item.replaceChildren(...heading(key), context.refusal(error), actions(key, null));
            }
        }
    }

    function isShown(key) {
        const present = keyOf(parameters);
        return present !== null && keyIdentity(present) === keyIdentity(key);
    }

    function missing(key) {
        return element('p', {}, 'This key is not there. ',
            element('a', { href: `#/misses?${new URLSearchParams(keyOnly(key))}` }, 'Why?'));
    }

    function actions(key, found) {
        const reason = changing(key, context);
        const tooLarge = found === null || found.isWhole ? null
            : `longer than ${bytes(READ_BYTES)}: too long to edit here`;
        return element('div', { class: 'actions start' },
            button('Read again', 'button', () => open(key), refusedRead),
            button('Set…', 'button', () => openSetDialog({
                client, key, item: found, done: () => open(key),
            }), reason ?? tooLarge),
            button('Delete…', 'button', () => openDeleteDialog({
                client, key, done: (answer) => deleted(key, answer),
            }), reason),
            context.may('read', 'admin')
                ? element('a', { href: `#/ring?${new URLSearchParams(keyOnly(key))}` }, 'Where it lives') : null);
    }

    function deleted(key, answer) {
        for (const node of list.children) {
            if (node.dataset.key === keyIdentity(key)) {
                node.remove();
                break;
            }
        }
        const outcome = answer.deleted ? 'The key is deleted.' : 'The key was not there any more.';
        item.replaceChildren(...heading(key), element('p', {}, outcome), actions(key, null));
    }

    function setNew() {
        openSetDialog({
            client, key: null, item: null,
            done(key) {
                if (!scan.seen.has(keyIdentity(key)) && (key.key ?? '').startsWith(scan.prefix)) {
                    scan.seen.add(keyIdentity(key));
                    list.prepend(line(key, keyIdentity(key)));
                }
                go({ prefix: scan.prefix, ...key });
            },
        });
    }

    context.onParameters((given) => follow(given));
    const start = parameters;
    parameters = new URLSearchParams();
    follow(start, true);
    return [
        element('div', { class: 'card' }, form),
        element('div', { class: 'browser-columns' },
            card('Keys', about, listTrouble, element('div', { class: 'scroll tall' }, list), more),
            card('Item', item)),
    ];
}

function keyOf(parameters) {
    if (parameters.has('key')) {
        return { key: parameters.get('key') };
    }
    const key_base64 = parameters.get('key_base64');
    if (key_base64 === null) {
        return null;
    }
    try {
        fromBase64(key_base64);
        return { key_base64 };
    } catch {
        // An address that somebody has cut.
        return null;
    }
}

// Why a key may not be changed here, or null where it may.
function changing(key, context) {
    if (!context.may('write')) {
        return 'needs the permission write';
    }
    const { prefixes } = context.who;
    const text = key.key ?? keyText(key);
    if (Array.isArray(prefixes) && !prefixes.some((prefix) => text.startsWith(prefix))) {
        return `only keys that begin with ${prefixes.join(' or ')} may be changed`;
    }
    return null;
}

function button(text, type, onclick, reason) {
    const node = element('button', { type, disabled: reason !== null, onclick }, text);
    return reason === null ? node
        : element('span', { class: 'refused' }, node, element('span', { class: 'reason' }, reason));
}

function heading(key) {
    return [element('p', { class: 'key key-heading' }, strange(keyText(key), 2000))];
}

function itemFacts(key, found) {
    return facts([
        ['Type', strange(found.type)],
        ['Value', found.size_bytes === null ? `more than ${bytes(READ_BYTES)}` : `${bytes(found.size_bytes)}`],
        ['Key', `${count(keyBytes(key).length)} bytes${key.key_base64 === undefined ? '' : ', not UTF-8'}`],
        ['Version', found.version],
        ['Lifetime', found.ttl_seconds === null ? 'none'
            : `${seconds(found.ttl_seconds)}, until ${time(found.read_at_ms + found.ttl_seconds * 1000)}`],
        ['Read at', time(found.read_at_ms)],
    ]);
}

function valueNodes(found) {
    const cut = found.isWhole ? []
        : [element('p', { class: 'quiet' }, `Only the first ${bytes(READ_BYTES)} are shown.`)];
    if (found.bytes.length === 0) {
        return [element('p', { class: 'quiet' }, 'The value is empty.')];
    }
    const text = utf8(found.isWhole ? found.bytes : withoutTornEnd(found.bytes));
    const parts = text === null ? null : pieces(text, '\n\t');
    if (parts !== null && parts.length <= ESCAPES) {
        return [...cut, element('pre', { class: 'value', tabindex: 0, 'aria-label': 'Value' }, ...parts)];
    }
    const shown = found.bytes.subarray(0, DUMP_BYTES);
    const note = `${text === null ? 'No UTF-8: shown' : 'Mostly control characters: shown'} as bytes`
        + `${shown.length < found.bytes.length ? `, the first ${bytes(DUMP_BYTES)}` : ''}.`;
    return [...cut, element('p', { class: 'quiet' }, note),
        element('pre', { class: 'value dump', tabindex: 0, 'aria-label': 'Value as bytes' }, hexDump(shown))];
}
