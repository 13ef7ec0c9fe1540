// Drives the console in a real Chromium: `drive.js cluster URL FOLDER` through every view of a cluster under load, with
// screenshots, `drive.js wide URL FOLDER` through them with wide ids of nodes, and `drive.js keys URL KEY` on a node that asks
// for API keys. It says "ok" at its end; anything that is not as it should be ends it with an error.
'use strict';

const assert = require('node:assert');
const path = require('node:path');
const { chromium } = require('playwright-core');

const DEADLINE_MS = 30_000;
const VIEWS = ['overview', 'ring', 'within', 'keys', 'misses', 'slow', 'browser', 'events', 'config', 'metrics'];
// What each view shows once it has something of the node: a selector that is there then.
const SHOWN = {
    overview: '.chart path', ring: 'svg', within: 'table td', keys: 'table td', misses: 'table td', slow: 'table',
    browser: '.keys li', events: 'table td, li', config: 'table td', metrics: 'table td',
};

async function open(url) {
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM,
        // Root has no sandbox, and a container may have a small /dev/shm.
        args: ['--no-sandbox', '--disable-dev-shm-usage'],
    });
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: 'light' });
    context.setDefaultTimeout(DEADLINE_MS);
    const page = await context.newPage();
    const problems = [];
    page.on('console', (message) => {
        if (message.type() === 'error' || message.type() === 'warning') {
            problems.push(message.text());
        }
    });
    page.on('pageerror', (error) => problems.push(error.stack));
    page.on('dialog', (dialog) => {
        problems.push(`a dialog of the browser: ${dialog.message()}`);
        dialog.dismiss();
    });
    page.on('request', (request) => {
        if (new URL(request.url()).origin !== new URL(url).origin) {
            problems.push(`a request elsewhere: ${request.url()}`);
        }
    });
    return { browser, context, page, problems };
}

// Resolves when so many polls have come to their end since now.
async function polls(page, count) {
    const before = Number(await page.getAttribute('main', 'data-polled'));
    await page.waitForFunction((end) => Number(document.querySelector('main').dataset.polled) >= end, before + count);
}

async function go(page, view) {
    await page.click(`nav a[data-view="${view}"]`);
    await page.waitForSelector(`.view-${view}`);
    await page.waitForSelector(SHOWN[view]);
}

// The figures on the page are those of the answer that the page has had, every one.
async function compareFigures(page, answers) {
    await polls(page, 1);
    const shown = await page.evaluate(() => [...document.querySelectorAll('[data-metric]')]
        .map((node) => [node.dataset.metric, node.dataset.value, node.textContent]));
    const equals = (figures) => shown.filter(([where, value]) => {
        const figure = where.split('.').reduce((at, part) => at?.[part], figures);
        return String(figure ?? '') !== (value ?? '');
    });
    // A poll may have come to its end meanwhile: one of the last answers is the one.
    const differing = answers.slice(-3).map(equals);
    assert(differing.some((list) => list.length === 0), JSON.stringify(differing.at(-1)));
    assert(shown.every(([, , text]) => text !== ''), 'each is shown');
    return shown.length;
}

async function cluster(url, folder) {
    const { browser, context, page, problems } = await open(url);
    const answers = [];
    page.on('response', async (response) => {
        if (new URL(response.url()).pathname === '/metrics/json') {
            answers.push(await response.json().catch(() => null));
        }
    });
    const shot = (name) => page.screenshot({ path: path.join(folder, `console-${name}.png`) });

    await page.goto(`${url}/console`);
    assert.equal(new URL(page.url()).pathname, '/console/');
    await page.waitForSelector('.view-overview');
    await polls(page, 4);
    let compared = 0;
    for (const view of VIEWS) {
        await go(page, view);
        await polls(page, 1);
        if (['overview', 'within', 'misses', 'metrics'].includes(view)) {
            compared += await compareFigures(page, answers);
        }
        await shot(view);
    }
    assert(compared > 100, `${compared} figures were compared`);

    // All three are members, in words.
    await go(page, 'ring');
    const members = await page.textContent('.view-ring');
    for (const name of ['node1', 'node2', 'node3']) {
        assert(members.includes(name), name);
    }

    // The others answer, and follow.
    await go(page, 'within');
    const peers = await page.textContent('.view-within');
    for (const part of ['node2', 'node3', 'quorum']) {
        assert(peers.includes(part), part);
    }

    // The load's hottest key is the first.
    await go(page, 'keys');
    await page.waitForFunction(() => document.querySelector('.view-keys table tbody tr')?.textContent.includes('load:0'));

    // Why a key is not there.
    await go(page, 'misses');
    await page.fill('#why_key', 'never-set');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('.answer')?.textContent.includes('never set'));

    // A key is set, seen by another node, changed, and deleted.
    await go(page, 'browser');
    await page.click('text=Set a key…');
    await page.waitForSelector('dialog[open]');
    await page.keyboard.type('from-the-console');
    await page.fill('dialog[open] textarea', 'hello <b>world</b>');
    await page.click('dialog[open] button.primary');
    await page.waitForSelector('dialog[open]', { state: 'detached' });
    await page.waitForFunction(() => document.querySelector('.value')?.textContent.includes('hello <b>world</b>'));
    const read = () => context.request.get(`${process.env.OTHER}/cache/from-the-console`);
    assert.equal(await (await read()).text(), 'hello <b>world</b>');
    await shot('item');
    await page.click('.view-browser >> text=Delete… >> nth=0');
    await page.waitForSelector('dialog[open]');
    await page.click('dialog[open] button.danger');
    await page.waitForSelector('dialog[open]', { state: 'detached' });
    assert.equal((await read()).status(), 404);

    // Dark, by keyboard alone, and on a narrow screen, where nothing is wider than that.
    await page.keyboard.press('Escape');
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('g');
    await page.keyboard.press('o');
    await page.waitForSelector('.view-overview');
    await page.emulateMedia({ colorScheme: 'dark' });
    await polls(page, 1);
    await shot('dark');
    await page.setViewportSize({ width: 360, height: 740 });
    for (const view of VIEWS) {
        await page.evaluate((name) => { location.hash = `#/${name}`; }, view);
        await page.waitForSelector(`.view-${view}`);
        await page.waitForSelector(SHOWN[view], { state: 'attached' });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert(wide <= 360, `${view} is ${wide} wide`);
    }
    await page.evaluate(() => { location.hash = '#/overview'; });
    await polls(page, 1);
    await shot('narrow');
    assert.deepEqual(problems, []);
    await browser.close();
}

// Of a cluster whose first two nodes have ids as wide as there are: they are cut, whole as titles, and push nothing aside.
async function wide(url, folder) {
    const { browser, page, problems } = await open(url);
    const ids = ['node1', 'node2'].map((name) => `${name}.${'wide-'.repeat(11)}ids`);
    assert.deepEqual(ids.map((id) => id.length), [64, 64]);
    await page.route(/\/(cluster\/(status|events)|metrics\/json|hot|big|slow)(\?|$)/, async (route) => {
        const response = await route.fetch();
        const text = await response.text();
        await route.fulfill({ response, body: text.replaceAll(/\bnode([12])\b/g, (name, nth) => ids[nth - 1]) });
    });
    await page.goto(`${url}/console/`);
    for (const [width, height, most] of [[1280, 860, 170], [360, 740, 145]]) {
        await page.setViewportSize({ width, height });
        for (const view of VIEWS) {
            await page.evaluate((name) => { location.hash = `#/${name}`; }, view);
            await page.waitForSelector(`.view-${view}`);
            await page.waitForSelector(SHOWN[view], { state: 'attached' });
            if (['overview', 'ring', 'within', 'events', 'metrics'].includes(view)) {
                const [me, other] = ids.map((id) => `.cut[title*="${id}"]`);
                await page.waitForSelector(view === 'metrics' ? me : other, { state: 'attached' });
            }
            const found = await page.evaluate(() => ({
                page: document.documentElement.scrollWidth,
                cells: [...document.querySelectorAll('.cut')].filter((cell) => cell.textContent.includes('wide-'))
                    .map((cell) => [cell.clientWidth, cell.scrollWidth, cell.title.includes(cell.textContent)]),
            }));
            assert(found.page <= width, `${view} is ${found.page} wide`);
            for (const [shown, whole, isTitle] of found.cells) {
                assert(shown <= most && whole > shown && isTitle, `${view}: ${shown} of ${whole}, ${isTitle}`);
            }
            await page.screenshot({ path: path.join(folder, `wide-${view}-${width}.png`) });
        }
    }
    assert.deepEqual(problems, []);
    await browser.close();
}

async function keys(url, key) {
    const { browser, page, problems } = await open(url);
    await page.goto(`${url}/console/`);
    await page.waitForSelector('.login');
    await page.fill('#api_key', 'henge_wrong');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#login_message:not(:empty)');
    await page.fill('#api_key', key);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.view-overview');
    await polls(page, 1);
    // It may read and no more: what it may not do is not offered, and says why.
    await page.click('nav a[data-view="slow"]');
    await page.waitForSelector('.notice');
    assert((await page.textContent('.notice')).includes('admin'));
    await page.click('nav a[data-view="browser"]');
    await page.waitForSelector('.view-browser');
    assert(await page.isDisabled('text=Set a key…'));
    const kept = await page.evaluate(() => [Object.values(localStorage), Object.values(sessionStorage), document.cookie]);
    assert(JSON.stringify(kept).includes(key), 'it is kept for the tab');
    assert(!JSON.stringify([kept[0], kept[2]]).includes(key), 'and in no place that stays');
    await page.click('#log_out');
    await page.waitForSelector('.login');
    // Chromium itself says of an answer that it is a 401.
    assert.deepEqual(problems.filter((text) => !text.includes('401')), []);
    await browser.close();
}

const [what, url, last] = process.argv.slice(2);
({ cluster, wide, keys })[what](url, last).then(() => console.log('ok'), (error) => {
    console.error(error);
    process.exit(1);
});
