// Turns numbers into text that is read at a glance: units, separators, times. It knows no document, and what is exact
// stands in data-value beside it.

const GROUPED = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const NOTHING = '–';

// Keeps a number and its unit on one line.
const SPACE = '\u00a0';

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const COUNT_UNITS = ['', 'k', 'M', 'G', 'T', 'P'];

export function count(value) {
    return isNumber(value) ? GROUPED.format(value) : NOTHING;
}

/// Three digits and a unit: 12.3k.
export function compact(value) {
    return isNumber(value) ? scaled(value, 1000, COUNT_UNITS, '') : NOTHING;
}

export function bytes(value) {
    return isNumber(value) ? scaled(value, 1024, BYTE_UNITS, SPACE) : NOTHING;
}

export function rate(value) {
    return isNumber(value) ? `${compact(value)}/s` : NOTHING;
}

export function bytesRate(value) {
    return isNumber(value) ? `${bytes(value)}/s` : NOTHING;
}

export function percent(value) {
    if (!isNumber(value)) {
        return NOTHING;
    }
    // 99.96 % must not read as 100 %: what is not all is never shown as all.
    const percents = value * 100;
    const shown = percents > 99.9 && percents < 100 ? 99.9 : percents;
    return `${shown.toFixed(shown === 0 || shown === 100 ? 0 : 1)}${SPACE}%`;
}

export function wholePercent(value) {
    return isNumber(value) ? `${Math.round(value * 100)}${SPACE}%` : NOTHING;
}

/// A time that was taken, from nanoseconds up to days.
export function seconds(value) {
    if (!isNumber(value)) {
        return NOTHING;
    }
    if (value === 0) {
        return `0${SPACE}s`;
    }
    const size = Math.abs(value);
    if (size < 0.001) {
        return `${digits(value * 1e6)}${SPACE}µs`;
    }
    if (size < 1) {
        return `${digits(value * 1000)}${SPACE}ms`;
    }
    if (size < 120) {
        return `${digits(value)}${SPACE}s`;
    }
    if (size < 7200) {
        return `${digits(value / 60)}${SPACE}min`;
    }
    return size < 172_800 ? `${digits(value / 3600)}${SPACE}h` : `${digits(value / 86_400)}${SPACE}days`;
}

export function milliseconds(value) {
    return isNumber(value) ? seconds(value / 1000) : NOTHING;
}

export function microseconds(value) {
    return isNumber(value) ? seconds(value / 1e6) : NOTHING;
}

/// The time of day, with the date where it is another day.
export function time(at_ms) {
    const at = new Date(at_ms);
    if (!isNumber(at_ms) || Number.isNaN(at.getTime())) {
        return NOTHING;
    }
    const clock = at.toTimeString().slice(0, 8);
    return at.toDateString() === new Date().toDateString() ? clock : `${day(at)} ${clock}`;
}

function day(at) {
    const pad = (number) => String(number).padStart(2, '0');
    return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
}

/// A figure by the unit that ends its name.
export function byName(path, value) {
    if (typeof value !== 'number') {
        return String(value);
    }
    if (/bytes$/.test(path)) {
        return bytes(value);
    }
    if (/_at_seconds$/.test(path)) {
        return value === 0 ? 'never' : time(value * 1000);
    }
    if (/seconds(\.(p\d+|sum))?$/.test(path)) {
        return seconds(value);
    }
    if (/(ratio|share)$/.test(path)) {
        return percent(value);
    }
    return Number.isInteger(value) ? count(value) : digits(value);
}

/// A number of "a thing" or "things".
export function plural(number, one, many = `${one}s`) {
    return `${count(number)} ${number === 1 ? one : many}`;
}

function isNumber(value) {
    return typeof value === 'number' && Number.isFinite(value);
}

function scaled(value, step, units, space) {
    let unit = 0;
    let rest = value;
    while (Math.abs(rest) >= step && unit < units.length - 1) {
        rest /= step;
        unit += 1;
    }
    return `${digits(rest)}${units[unit] === '' ? '' : space + units[unit]}`;
}

function digits(value) {
    const size = Math.abs(value);
    if (size >= 100 || Number.isInteger(value)) {
        return GROUPED.format(value);
    }
    return size >= 10 ? value.toFixed(1) : trimmed(value.toFixed(2));
}

function trimmed(text) {
    return text.replace(/\.?0+$/, '') || '0';
}
