// Asks the node that has served the page, and shows it the API key. The key is kept in sessionStorage only, so it goes
// with the tab, and is in no address. What is refused becomes a Problem with the node's own words; nothing is asked
// twice.

const STORED = 'henge.api_key';

// A node answers within its own 5 s and a little; what takes longer does not come.
const TIMEOUT_MS = 12_000;

/// An answer that is an error: `application/problem+json`, or a status by itself.
export class Problem extends Error {
    constructor(status, body) {
        super(body?.detail ?? body?.title ?? `The node answered with the status ${status}`);
        this.status = status;
        this.code = body?.code ?? '';
        this.title = body?.title ?? '';
        this.body = body ?? {};
    }
}

/// No answer at all: the node is gone, or the network is.
export class Unreachable extends Error {
    name = 'Unreachable';
}

/// Tells `reached`, `unreached` and `unauthenticated`.
class Client extends EventTarget {
    #key = sessionStorage.getItem(STORED);

    get hasKey() {
        return this.#key !== null;
    }

    useKey(key) {
        this.#key = key;
        sessionStorage.setItem(STORED, key);
    }

    forgetKey() {
        this.#key = null;
        sessionStorage.removeItem(STORED);
    }

    /// The JSON of a GET. `query` leaves out what is null; an answer whose status is `accepted` is no error.
    async get(path, query = {}, { signal, accepted } = {}) {
        return json(await this.#ask('GET', address(path, query), { signal, accepted }));
    }

    /// The JSON of a POST with a body; `body` is JSON text already, so that its numbers stay as they were written.
    async post(path, body, { signal } = {}) {
        const headers = { 'Content-Type': 'application/json' };
        return json(await this.#ask('POST', path, { signal, headers, body }));
    }

    async text(path, { signal } = {}) {
        const response = await this.#ask('GET', path, { signal });
        try {
            return await response.text();
        } catch (error) {
            throw new Unreachable('The answer broke off', { cause: error });
        }
    }

    /// The answer itself, to be read as far as it is wanted. Who asks this reads it, or cancels it.
    async raw(path, { signal } = {}) {
        return this.#ask('GET', path, { signal });
    }

    async #ask(method, path, { signal, headers = {}, body, accepted = [] }) {
        const key = this.#key;
        const limits = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
        let response;
        try {
            response = await fetch(path, {
                method,
                body,
                headers: key === null ? headers : { ...headers, Authorization: `Bearer ${key}` },
                signal: AbortSignal.any(limits),
                // A certificate of the browser may tell who asks; nothing of the cache is to be kept by it.
                credentials: 'same-origin',
                cache: 'no-store',
                redirect: 'error',
            });
        } catch (error) {
            if (signal?.aborted) {
                throw error;
            }
            this.dispatchEvent(new Event('unreached'));
            throw new Unreachable('The node does not answer', { cause: error });
        }
        this.dispatchEvent(new Event('reached'));
        if (response.ok || accepted.includes(response.status)) {
            return response;
        }
        const problem = new Problem(response.status, await jsonOrNothing(response));
        // An answer to a key that has been replaced meanwhile says nothing of the present one.
        if (response.status === 401 && key === this.#key) {
            this.dispatchEvent(new CustomEvent('unauthenticated', { detail: problem }));
        }
        throw problem;
    }
}

export const client = new Client();

function address(path, query) {
    const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
    return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

async function json(response) {
    const body = await jsonOrNothing(response);
    if (body === null) {
        throw new Problem(response.status, { title: 'The node answered what is no JSON' });
    }
    return body;
}

async function jsonOrNothing(response) {
    try {
        return await response.json();
    } catch {
        return null;
    }
}
