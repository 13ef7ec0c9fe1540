// Reads, sets and deletes one key. Values are read in their raw form, so that they are shown as they are, and no
// further than can be shown; nothing is tried twice, as a write whose outcome is unknown may have been done.

import { fromBase64, keyBytes, keyOnly, keyPath } from './bytes.js';
import { Unreachable } from './client.js';

// More of a value than this is not read: nobody reads it, and the browser would hold it all.
export const READ_BYTES = 262_144;

// A URL holds 65,534 bytes, and a byte of a key may take three of them.
const PATH_KEY_BYTES = 20_000;

/// `{ bytes, isWhole, size_bytes, type, version, ttl_seconds, read_at_ms }`, or null where the key is not there. That
/// is asked first, as it counts as no use: a reader who looks for a key would be in the figures as a miss.
export async function readItem(client, key, signal) {
    if (!await exists(client, key, signal)) {
        return null;
    }
    return fitsPath(key) ? readRaw(client, key, signal) : readJson(client, key, signal);
}

async function exists(client, key, signal) {
    const answer = keyBytes(key).length <= PATH_KEY_BYTES ? await client.get('/exists', keyOnly(key), { signal })
        : await client.post('/exists', JSON.stringify(keyOnly(key)), { signal });
    return answer.exists;
}

// A URL cannot have the path segments "." and "..", however they are written, and the node takes no empty one.
function fitsPath(key) {
    const bytes = keyBytes(key);
    return bytes.length > 0 && bytes.length <= PATH_KEY_BYTES && key.key !== '.' && key.key !== '..';
}

async function readRaw(client, key, signal) {
    const response = await client.raw(`/cache/${keyPath(key)}`, { signal });
    const { bytes, isWhole } = await readSome(response);
    const length = response.headers.has('Content-Encoding') ? null : response.headers.get('Content-Length');
    const ttl = response.headers.get('X-TTL');
    return {
        bytes,
        isWhole,
        size_bytes: isWhole ? bytes.length : length === null ? null : Number(length),
        type: response.headers.get('Content-Type') ?? 'application/octet-stream',
        version: response.headers.get('ETag')?.replaceAll('"', '') ?? '',
        ttl_seconds: ttl === null ? null : Number(ttl),
        read_at_ms: Date.now(),
    };
}

async function readSome(response) {
    const reader = response.body.getReader();
    const chunks = [];
    let length = 0;
    try {
        for (;;) {
            const { done, value } = await reader.read();
            if (done) {
                return { bytes: joined(chunks, length), isWhole: true };
            }
            chunks.push(value);
            length += value.length;
            if (length > READ_BYTES) {
                await reader.cancel();
                return { bytes: joined(chunks, length).subarray(0, READ_BYTES), isWhole: false };
            }
        }
    } catch (error) {
        throw new Unreachable('The value broke off', { cause: error });
    }
}

function joined(chunks, length) {
    const all = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
        all.set(chunk, at);
        at += chunk.length;
    }
    return all;
}

async function readJson(client, key, signal) {
    const item = await client.post('/get', JSON.stringify(keyOnly(key)), { signal });
    const isText = typeof item.value === 'string';
    const bytes = item.value_base64 !== undefined ? fromBase64(item.value_base64)
        : new TextEncoder().encode(isText ? item.value : JSON.stringify(item.value));
    return {
        bytes: bytes.subarray(0, READ_BYTES),
        isWhole: bytes.length <= READ_BYTES,
        size_bytes: bytes.length,
        type: item.value_base64 === undefined && !isText ? 'application/json' : 'application/octet-stream',
        version: item.version,
        ttl_seconds: item.ttl,
        read_at_ms: Date.now(),
    };
}

/// Sets a key. `kind` is `text`, `json` or `base64`; `ttl_text` is what was typed, in seconds; `version` is what it has
/// to be still, or null. What was typed wrong is an Error that says so.
export async function writeItem(client, { key, kind, text, ttl_text, keepsTtl, version }) {
    const parts = [
        Object.entries(keyOnly(key)).map(([name, value]) => `"${name}":${JSON.stringify(value)}`)[0],
        kind === 'base64' ? `"value_base64":${JSON.stringify(base64(text))}`
            : `"value":${kind === 'json' ? checkedJson(text) : JSON.stringify(text)}`,
    ];
    if (keepsTtl) {
        parts.push('"keep_ttl":true');
    } else if (ttl_text.trim() !== '') {
        parts.push(`"ttl":${seconds(ttl_text.trim())}`);
    }
    if (version !== null) {
        parts.push(`"if_version":${JSON.stringify(version)}`);
    }
    return client.post('/set', `{${parts.join(',')}}`);
}

// The text goes into the body as it was typed, since a number that has been through JavaScript may be another one.
function checkedJson(text) {
    try {
        JSON.parse(text);
    } catch (error) {
        throw new Error(`The value is no JSON: ${error.message}`, { cause: error });
    }
    return text;
}

function base64(text) {
    const bare = text.replace(/\s/g, '');
    try {
        fromBase64(bare);
    } catch (error) {
        throw new Error('The value is no base64.', { cause: error });
    }
    return bare;
}

function seconds(text) {
    if (!/^\d+(\.\d+)?$/.test(text) || Number(text) === 0) {
        throw new Error('The lifetime has to be a number of seconds greater than 0, or empty for none.');
    }
    return Number(text);
}

export async function deleteItem(client, key) {
    return client.post('/delete', JSON.stringify(keyOnly(key)));
}
