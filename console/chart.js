// A line chart in SVG: time from left to right, a few lines, an axis, and a reading by pointer or arrow keys. It draws
// points that it is given and reckons nothing. Nothing in it moves but by a new poll, so there is no motion to reduce.
// Lines differ by colour and by dashes.

import { element, setText, shape } from './dom.js';
import { WINDOW_MS } from './history.js';
import { time } from './format.js';

const HEIGHT = 124;
const MARGIN = { left: 50, right: 4, top: 8, bottom: 20 };

// A chart narrower than this has room for the ends of its time only.
const WIDE = 340;

// Below this many of its units an axis would show differences that are none.
const SMALLEST_TOP = 1e-9;

/// `series` are `{ name, style }` with a style from 1 to 7; `format` writes a value, and
/// `scale` one of the axis, which has less room; `top` fixes the end of the axis, and
/// `base` is 1024 where the axis counts bytes.
export function lineChart({ label, series, format, scale = format, top = null, base = 1000 }) {
    const grid = shape('g', { class: 'chart-grid' });
    const lines = series.map(({ style }) => shape('path', { class: `line series-${style}` }));
    const cross = shape('line', { class: 'chart-cross', y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
    const dots = series.map(({ style }) => shape('circle', { class: `dot series-${style}`, r: 3.5 }));
    const picture = shape('svg', {
        class: 'chart', role: 'img', tabindex: 0, height: HEIGHT,
        'aria-label': `${label}. Left and right arrow keys read single polls.`,
    }, grid, ...lines, cross, ...dots);
    const when = element('span', { class: 'chart-when' });
    const readings = series.map(() => element('b'));
    const kind = series.length > 3 ? 'legend many' : 'legend';
    const legend = element('ul', { class: kind }, ...series.map(({ name, style }, at) => element('li', {},
        shape('svg', { class: 'swatch', viewBox: '0 0 18 8', 'aria-hidden': 'true' },
            shape('line', { class: `line series-${style}`, x1: 1, x2: 17, y1: 4, y2: 4 })),
        `${name} `, readings[at])));
    const node = element('div', { class: 'chart-box' }, when, picture, legend);

    let drawn = { points: series.map(() => []), now_ms: Date.now() };
    let width = 0;
    let read_ms = null;

    const x = (at_ms) => MARGIN.left + (1 - (drawn.now_ms - at_ms) / WINDOW_MS) * inner();
    const inner = () => Math.max(width - MARGIN.left - MARGIN.right, 1);

    function redraw() {
        if (width === 0) {
            return;
        }
        const { points, now_ms } = drawn;
        const shown = points.flat().filter((point) => point.value !== null && point.at_ms >= now_ms - WINDOW_MS);
        const highest = Math.max(0, ...shown.map((point) => point.value));
        const steps = axis(top ?? highest, base, top !== null);
        const end = steps.at(-1);
        const y = (value) => {
            const height = HEIGHT - MARGIN.top - MARGIN.bottom;
            return MARGIN.top + (1 - Math.min(value / end, 1)) * height;
        };
        picture.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
        grid.replaceChildren(...steps.flatMap((step) => [
            shape('line', { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(step), y2: y(step) }),
            shape('text', { x: MARGIN.left - 6, y: y(step) + 4, 'text-anchor': 'end' }, scale(step)),
        ]), ...minutes());
        points.forEach((line, at) => lines[at].setAttribute('d', path(line, x, y, now_ms)));
        drawReading(y);
    }

    function minutes() {
        const floor = HEIGHT - MARGIN.bottom;
        const ticks = [5, 4, 3, 2, 1, 0].map((ago) => {
            const at = x(drawn.now_ms - ago * 60_000);
            return shape('line', { x1: at, x2: at, y1: floor, y2: floor + 4 });
        });
        return [...ticks, ...(width < WIDE ? [5, 0] : [5, 4, 3, 2, 1, 0]).map((ago) => shape('text', {
            x: x(drawn.now_ms - ago * 60_000), y: HEIGHT - 5,
            'text-anchor': ago === 0 ? 'end' : ago === 5 ? 'start' : 'middle',
        }, ago === 0 ? 'now' : ago === 5 ? '−5 min' : `−${ago}`))];
    }

    function drawReading(y) {
        const at_ms = read_ms === null ? null : nearest(times(), read_ms);
        cross.toggleAttribute('hidden', at_ms === null);
        if (at_ms !== null) {
            cross.setAttribute('x1', x(at_ms));
            cross.setAttribute('x2', x(at_ms));
        }
        setText(when, at_ms === null ? '' : time(at_ms));
        drawn.points.forEach((line, at) => {
            const point = at_ms === null ? line.at(-1) : line.find((one) => one.at_ms === at_ms);
            const value = point?.value ?? null;
            setText(readings[at], format(value));
            dots[at].toggleAttribute('hidden', at_ms === null || value === null);
            if (at_ms !== null && value !== null) {
                dots[at].setAttribute('cx', x(at_ms));
                dots[at].setAttribute('cy', y(value));
            }
        });
    }

    function times() {
        const first_ms = drawn.now_ms - WINDOW_MS;
        return [...new Set(drawn.points.flat().filter((point) => point.value !== null && point.at_ms >= first_ms)
            .map((point) => point.at_ms))].sort((one, other) => one - other);
    }

    function read(at_ms) {
        read_ms = at_ms;
        redraw();
    }

    picture.addEventListener('pointermove', (event) => {
        const box = picture.getBoundingClientRect();
        const part = (event.clientX - box.left - MARGIN.left) / inner();
        read(drawn.now_ms - (1 - part) * WINDOW_MS);
    });
    picture.addEventListener('pointerleave', () => read(null));
    picture.addEventListener('blur', () => read(null));
    picture.addEventListener('keydown', (event) => {
        const all = times();
        const at = read_ms === null ? all.length : all.indexOf(nearest(all, read_ms));
        const wanted = { ArrowLeft: Math.max(at - 1, 0), ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
        if (wanted !== undefined) {
            event.preventDefault();
            read(all[wanted] ?? null);
        } else if (event.key === 'Escape') {
            read(null);
        }
    });
    new ResizeObserver(([entry]) => {
        width = Math.round(entry.contentRect.width);
        redraw();
    }).observe(picture);

    return {
        node,
        /// Draws one list of points `{ at_ms, value }` for each series.
        draw(points, now_ms) {
            drawn = { points, now_ms };
            redraw();
        },
    };
}

function path(line, x, y, now_ms) {
    let text = '';
    let begun = false;
    for (const { at_ms, value } of line) {
        if (value === null || at_ms < now_ms - WINDOW_MS) {
            begun = false;
            continue;
        }
        // A point by itself is a line of no length, which its round ends make visible.
        text += `${begun ? 'L' : 'M'}${x(at_ms).toFixed(1)} ${y(value).toFixed(1)}${begun ? '' : 'l.01 0'}`;
        begun = true;
    }
    return text;
}

// Two to five steps from 0 on, each 1, 2 or 5 times a power of ten (of a unit of bytes, where the base is 1024).
function axis(highest, base, isFixed) {
    if (isFixed) {
        return [0, highest / 2, highest];
    }
    const goal = Math.max(highest, SMALLEST_TOP) / 3;
    const unit = base === 1024 ? 1024 ** Math.max(0, Math.floor(Math.log(goal) / Math.log(1024))) : 1;
    const power = 10 ** Math.floor(Math.log10(goal / unit));
    const step = [1, 2, 5, 10].find((factor) => factor * power * unit >= goal) * power * unit;
    if (highest <= 0) {
        return [0, 1];
    }
    const steps = [0];
    while (steps.at(-1) < highest) {
        steps.push(steps.length * step);
    }
    return steps;
}

function nearest(times, at_ms) {
    return times.reduce((best, one) =>
        (best === null || Math.abs(one - at_ms) < Math.abs(best - at_ms) ? one : best), null);
}
