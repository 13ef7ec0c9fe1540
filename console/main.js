// Puts the console together: who is asking, which view is shown, the poll of the node's figures that all views share,
// navigation, keys and theme. A view knows only the context that it is given; what a figure means stands in the views.

import { Problem, Unreachable, client } from './client.js';
import { element, setText, showFigure } from './dom.js';
import { time } from './format.js';
import { History, figure, latencyBuckets } from './history.js';
import { loginForm } from './login.js';
import { Poll } from './poll.js';
import { helpDialog, listen } from './keyboard.js';
import * as overview from './views/overview.js';
import * as ring from './views/ring.js';
import * as keys from './views/keys.js';
import * as misses from './views/misses.js';
import * as slow from './views/slow.js';
import * as within from './views/within.js';
import * as browser from './views/browser.js';
import * as events from './views/events.js';
import * as config from './views/config.js';
import * as metrics from './views/metrics.js';

// Each view has a title, the letter that follows `g`, the permissions of which one is needed, and show(context).
const VIEWS = { overview, ring, within, keys, misses, slow, browser, events, config, metrics };

const METRICS_PERIOD_MS = 2000;

// Permissions change seldom, and a request that is refused says so anyway.
const WHOAMI_PERIOD_MS = 20_000;

// A node that does not know /whoami has no console either; only in development it is asked, and allows everything.
const ANYONE = { name: null, permissions: ['read', 'write', 'admin'], prefixes: null, needs_key: false };

const THEMES = ['system', 'light', 'dark'];

const main = document.getElementById('main');
const banner = document.getElementById('banner');
const navigation = document.getElementById('navigation');
const menu = document.getElementById('menu');
const history = new History();
const troubles = new Map();

let who = null;
let shown = null;
let silent_since_ms = null;
let metricsPoll = null;

const whoPoll = new Poll(WHOAMI_PERIOD_MS, askWho, (error) => {
    if (error instanceof Problem && error.status !== 401) {
        trouble('who', `The node does not say what may be done here: ${error.message}`);
    }
});

async function askWho(signal) {
    const hadKey = client.hasKey;
    let answer;
    try {
        answer = await client.get('/whoami', {}, { signal });
    } catch (error) {
        if (!(error instanceof Problem) || error.status !== 404) {
            throw error;
        }
        answer = ANYONE;
    }
    trouble('who', null);
    // Who has logged in or out meanwhile is somebody else.
    if (hadKey === client.hasKey && JSON.stringify(answer) !== JSON.stringify(who)) {
        who = answer;
        begin(null);
    }
}

// With who is asking known, or become another: what is shown and polled follows from that.
function begin(message) {
    leave();
    metricsPoll?.stop();
    metricsPoll = null;
    trouble('figures', null);
    setText(document.getElementById('who'), who.name ? `as ${who.name}` : '');
    document.getElementById('log_out').hidden = !client.hasKey;
    const mustLogIn = who.needs_key && who.permissions.length === 0;
    document.body.classList.toggle('is-logged-out', mustLogIn);
    if (mustLogIn) {
        history.clear();
        showLogin(message ?? (client.hasKey ? 'This API key allows nothing.' : null));
        return;
    }
    if (may('read', 'admin')) {
        metricsPoll = new Poll(METRICS_PERIOD_MS, pollMetrics, (error) => {
            if (error instanceof Problem) {
                trouble('figures', `The node does not give its figures: ${error.message}`);
            }
        });
    }
    showView();
}

function may(...permissions) {
    return permissions.some((permission) => who.permissions.includes(permission));
}

async function pollMetrics(signal) {
    const [figures, text] = await Promise.all([
        client.get('/metrics/json', {}, { signal }),
        shown?.module.needsLatencies ? client.text('/metrics', { signal }) : null,
    ]);
    history.take(Date.now(), figures, text === null ? null : latencyBuckets(text));
    trouble('figures', null);
    const node = document.getElementById('node');
    setText(node, figures.node_id ?? '');
    node.title = figures.node_id ?? '';
    setTitle();
    shown?.polled.forEach((listener) => listener());
    main.dataset.polled = String(Number(main.dataset.polled) + 1);
}

// ---- Views

function wanted() {
    const [, name, query] = /^#\/([a-z]*)(?:\?(.*))?$/s.exec(location.hash) ?? [];
    return { name: Object.hasOwn(VIEWS, name) ? name : 'overview', parameters: new URLSearchParams(query ?? '') };
}

function showView() {
    const { name, parameters } = wanted();
    if (shown?.name === name && shown.changed) {
        shown.changed(parameters);
        return;
    }
    leave();
    const module = VIEWS[name];
    const body = element('div', { class: `view view-${name}` });
    const notices = element('div');
    shown = { name, module, polled: [], polls: [], left: new AbortController(), changed: null };
    main.replaceChildren(element('h1', {}, module.title), notices, body);
    setTitle();
    for (const link of navigation.querySelectorAll('a')) {
        if (link.dataset.view === name) {
            link.setAttribute('aria-current', 'page');
        } else {
            link.removeAttribute('aria-current');
        }
    }
    // What is refused is noted down by the node each time, so it is not even asked.
    if (!may(...module.needs)) {
        notices.append(notice('This view is not allowed here', lacking(module.needs)));
        return;
    }
    const context = makeContext(shown, notices, parameters);
    body.append(...module.show(context));
    if (history.latest !== null) {
        shown.polled.forEach((listener) => listener());
    }
}

function leave() {
    shown?.left.abort();
    shown?.polls.forEach((poll) => poll.stop());
    shown = null;
}

function makeContext(view, notices, parameters) {
    return {
        client,
        history,
        who,
        parameters,
        signal: view.left.signal,
        may,
        /// Polls something for as long as the view is shown, and says in a notice when the node refuses.
        every(period_ms, work) {
            const place = element('div');
            notices.append(place);
            const poll = new Poll(period_ms, async (signal) => {
                await work(signal);
                place.replaceChildren();
            }, (error) => {
                if (error instanceof Problem) {
                    place.replaceChildren(refusal(error, view.module.needs));
                } else if (!(error instanceof Unreachable)) {
                    throw error;
                }
            });
            view.polls.push(poll);
            return poll;
        },
        /// Hears of each poll of the figures.
        onPoll(listener) {
            view.polled.push(listener);
        },
        /// Hears of other parameters of the same view, which is not built anew then.
        onParameters(listener) {
            view.changed = listener;
        },
        /// An element that shows a figure of /metrics/json, and has it exactly in data-value.
        figure(path, format) {
            const node = element('span', { class: 'figure' }, format(null));
            view.polled.push(() => showFigure(node, path, figure(history.latest.metrics, path), format));
            return node;
        },
        refusal: (error) => refusal(error, view.module.needs),
    };
}

function refusal(error, needs) {
    if (!(error instanceof Problem)) {
        return notice('The node does not answer', 'Nothing is known of what became of this request.');
    }
    if (error.code === 'forbidden') {
        return notice('This is not allowed here', `${lacking(needs)} The node says: ${error.message}`);
    }
    if (error.code === 'route_not_found') {
        return notice('This node cannot tell', 'Its version does not know this.');
    }
    const code = [error.status, error.code].join(' ').trim();
    return notice(error.title || 'The node refuses', `${error.message} (${code})`);
}

function lacking(needs) {
    const as = who.name ? `the API key ${who.name}` : 'who asks here';
    return `It needs the permission ${needs.join(' or ')}; ${as} has ${who.permissions.join(', ') || 'none'}.`;
}

function notice(title, text) {
    return element('div', { class: 'notice' }, element('b', {}, title), element('p', {}, text));
}

function setTitle() {
    const node = history.latest?.metrics.node_id;
    document.title = [shown?.module.title, node, 'Henge'].filter(Boolean).join(' · ');
}

// ---- Who is asking

function showLogin(message) {
    // What is being typed stays.
    if (message === null && main.querySelector('.login') !== null) {
        return;
    }
    main.replaceChildren(loginForm(message, (key) => {
        client.useKey(key);
        who = null;
        askAnew();
    }));
    document.title = 'Log in · Henge';
    main.querySelector('input').focus();
}

function logOut(message) {
    client.forgetKey();
    history.clear();
    who = { name: null, permissions: [], prefixes: null, needs_key: true };
    begin(message);
}

// At once, also where the poll is waiting for the answer to who was there before.
async function askAnew() {
    try {
        await askWho();
    } catch (error) {
        if (error instanceof Unreachable || error.status === 401) {
            // The banner, or the form, says so already.
            return;
        }
        showLogin(error.message);
    }
}

client.addEventListener('unauthenticated', ({ detail }) => {
    logOut(client.hasKey ? `This API key does not hold: ${detail.message}` : null);
});

document.getElementById('log_out').addEventListener('click', () => {
    logOut(null);
    // A node without keys serves who has none, too.
    who = null;
    askAnew();
});

// ---- What goes wrong

client.addEventListener('unreached', () => {
    if (silent_since_ms === null) {
        silent_since_ms = Date.now();
        trouble('silent', `The node does not answer since ${time(silent_since_ms)}. `
            + 'What is shown is from before; it is asked again, at longer and longer intervals.');
    }
});

client.addEventListener('reached', () => {
    if (silent_since_ms !== null) {
        silent_since_ms = null;
        trouble('silent', null);
        [whoPoll, metricsPoll, ...(shown?.polls ?? [])].forEach((poll) => poll?.now());
    }
});

function trouble(topic, text) {
    if (text === null) {
        troubles.delete(topic);
    } else {
        troubles.set(topic, text);
    }
    // What is said twice is read out twice.
    const said = [...troubles.values()];
    if (said.join('\n') !== [...banner.children].map((line) => line.textContent).join('\n')) {
        banner.replaceChildren(...said.map((line) => element('p', {}, line)));
    }
}

// ---- Around the views

navigation.append(element('ul', {}, ...Object.entries(VIEWS).map(([name, view]) => element('li', {},
    element('a', { href: `#/${name}`, 'data-view': name, 'aria-keyshortcuts': `g ${view.letter}` }, view.title)))));

addEventListener('hashchange', () => {
    openMenu(false);
    if (who !== null && !document.body.classList.contains('is-logged-out')) {
        const before = shown?.name;
        showView();
        if (shown.name !== before) {
            scrollTo(0, 0);
            main.focus({ preventScroll: true });
        }
    }
});

function openMenu(isOpen) {
    menu.setAttribute('aria-expanded', String(isOpen));
    navigation.classList.toggle('is-open', isOpen);
}

menu.addEventListener('click', () => openMenu(menu.getAttribute('aria-expanded') !== 'true'));

document.getElementById('skip').addEventListener('click', (event) => {
    event.preventDefault();
    main.focus();
});

const themeButton = document.getElementById('theme');

function theme() {
    return document.documentElement.dataset.theme ?? 'system';
}

function useTheme(name) {
    if (name === 'system') {
        delete document.documentElement.dataset.theme;
    } else {
        document.documentElement.dataset.theme = name;
    }
    setText(themeButton, `Theme: ${name}`);
    try {
        localStorage.setItem('henge.theme', name);
    } catch {
        // It holds for this page then.
    }
}

themeButton.addEventListener('click', () => useTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
useTheme(theme());

const help = helpDialog(VIEWS);
document.body.append(help.node);
document.getElementById('help').addEventListener('click', help.open);
listen({ views: VIEWS, help, search: () => main.querySelector('[data-search]'), theme: () => themeButton.click() });
