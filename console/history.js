// The polls of /metrics/json of the last five minutes, and what follows from them: rates by difference and latencies by
// difference of histograms. It asks nobody and shows nothing. A counter never falls while a process lives, so one that
// has begins the history anew.

export const WINDOW_MS = 300_000;

// A pause longer than this (a hidden tab, a node that did not answer) is a gap in a line, and not a slope.
const GAP_SECONDS = 7;

// Counters that every node has; any of them tells a restart by falling.
const COUNTERS = ['uptime_seconds', 'hits', 'misses', 'sets', 'connections.accepted'];

// Only these routes serve keys. The others are figures, most of them the console's own polls.
const ROUTES = new Set([
    'get', 'get_post', 'set', 'delete', 'delete_post', 'incr', 'expire', 'persist', 'ttl', 'ttl_post', 'exists',
    'exists_post', 'mset', 'mget', 'mdelete', 'keys', 'keys_post', 'flush', 'raw_get', 'raw_head', 'raw_put',
    'raw_delete',
]);

export class History {
    #samples = [];

    get latest() {
        return this.#samples.at(-1) ?? null;
    }

    clear() {
        this.#samples = [];
    }

    /// Takes a poll; `buckets` of the same moment as `latencyBuckets` gives them, or null.
    take(at_ms, metrics, buckets) {
        const before = this.latest?.metrics;
        if (before && (before.node_id !== metrics.node_id
            || COUNTERS.some((path) => figure(metrics, path) < figure(before, path)))) {
            this.clear();
        }
        this.#samples.push({ at_ms, metrics, buckets });
        // One sample before the window stays, so that the line reaches its edge.
        while (this.#samples.length > 2 && this.#samples[1].at_ms < at_ms - WINDOW_MS) {
            this.#samples.shift();
        }
    }

    /// Points `{ at_ms, value }` of what `read` makes of each poll.
    values(read) {
        const points = [];
        let before = null;
        for (const sample of this.#samples) {
            if (before !== null && secondsBetween(before, sample) > GAP_SECONDS) {
                points.push({ at_ms: sample.at_ms - 1, value: null });
            }
            points.push({ at_ms: sample.at_ms, value: number(read(sample.metrics)) });
            before = sample;
        }
        return points;
    }

    /// Points of what `read` makes of two polls that follow each other and the seconds between them.
    changes(read) {
        const points = [];
        for (let at = 1; at < this.#samples.length; at += 1) {
            const [before, after] = [this.#samples[at - 1], this.#samples[at]];
            const seconds = secondsBetween(before, after);
            if (seconds > GAP_SECONDS) {
                points.push({ at_ms: after.at_ms - 1, value: null });
            } else if (seconds > 0) {
                points.push({ at_ms: after.at_ms, value: number(read(before, after, seconds)) });
            }
        }
        return points;
    }

    /// Points of how fast what `read` gives has grown, for each second.
    rates(read) {
        return this.changes((before, after, seconds) =>
            difference(number(read(after.metrics)), number(read(before.metrics)), seconds));
    }

    /// Points of a part of a sum, both of what has come between two polls; none where nothing has.
    shares(part, all) {
        return this.changes((before, after) => {
            const come = all(after.metrics) - all(before.metrics);
            return come > 0 ? (part(after.metrics) - part(before.metrics)) / come : null;
        });
    }

    /// Points of a quantile in seconds of the requests between two polls; none where there were none.
    quantiles(part) {
        return this.changes((before, after) => quantile(before.buckets, after.buckets, part));
    }
}

/// The last value of a line.
export function last(points) {
    return points.at(-1)?.value ?? null;
}

/// A figure by its path; undefined where the node does not tell it.
export function figure(metrics, path) {
    return path.split('.').reduce((at, part) => at?.[part], metrics);
}

/// Requests that the node has answered for keys, over HTTP and over the Redis protocol.
export function requests(metrics) {
    let http = 0;
    for (const [name, route] of Object.entries(metrics.routes ?? {})) {
        if (ROUTES.has(name)) {
            http += Object.values(route.by_status ?? {}).reduce((sum, some) => sum + some, 0);
        }
    }
    const redis = Object.values(metrics.commands ?? {}).reduce((sum, command) => sum + command.calls, 0);
    return { http, redis };
}

/// The counts by upper bound of all histograms of requests for keys in the text of /metrics.
export function latencyBuckets(text) {
    const counts = new Map();
    const line = /^henge_(?:request|command)_duration_seconds_bucket\{([^}]*)\} (\d+)/gm;
    for (const [, labels, amount] of text.matchAll(line)) {
        const route = /route="([^"]*)"/.exec(labels)?.[1];
        const bound = Number(/le="([^"]*)"/.exec(labels)?.[1].replace('+Inf', 'Infinity'));
        if (route === undefined || ROUTES.has(route)) {
            counts.set(bound, (counts.get(bound) ?? 0) + Number(amount));
        }
    }
    return [...counts].sort(([one], [other]) => one - other);
}

// Within a bucket values are taken as spread evenly; as bounds double, it is a good guess and no more.
function quantile(before, after, part) {
    if (!before || !after || after.length === 0) {
        return null;
    }
    const old = new Map(before);
    const grown = after.map(([bound, amount]) => [bound, amount - (old.get(bound) ?? 0)]);
    const total = grown.at(-1)[1];
    if (total <= 0) {
        return null;
    }
    const wanted = total * part;
    let [lower, below] = [0, 0];
    for (const [bound, amount] of grown) {
        if (amount >= wanted) {
            const inside = amount - below;
            return bound === Infinity ? lower : lower + (bound - lower) * ((wanted - below) / inside);
        }
        [lower, below] = [bound, amount];
    }
    return null;
}

// The node's own clock measures the time between two of its counts; the browser's has the network in it.
function secondsBetween(before, after) {
    return after.metrics.uptime_seconds - before.metrics.uptime_seconds;
}

function difference(after, before, seconds) {
    return after === null || before === null ? null : (after - before) / seconds;
}

function number(value) {
    return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
