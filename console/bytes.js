// Keys and values as bytes: base64, UTF-8 and a hex dump. A key is `{ key }` where it is text and `{ key_base64 }`
// where it is not, as the interface has it. Nothing here is shown or asked for.

const BYTES_OF_A_LINE = 16;

// base64 is made of chunks, as a call takes only so many arguments.
const CHUNK_BYTES = 8192;

/// The bytes of a key of the interface.
export function keyBytes(key) {
    return key.key_base64 === undefined ? new TextEncoder().encode(key.key) : fromBase64(key.key_base64);
}

/// What tells two keys apart.
export function keyIdentity(key) {
    return key.key_base64 === undefined ? `t${key.key}` : `b${key.key_base64}`;
}

/// A key to be read: its text, or its bytes with those that are no printable ASCII written as \x00.
export function keyText(key) {
    if (key.key_base64 === undefined) {
        return key.key;
    }
    try {
        return [...fromBase64(key.key_base64)].map(legible).join('');
    } catch {
        return key.key_base64;
    }
}

/// The key without what an answer has beside it.
export function keyOnly(item) {
    return item.key_base64 === undefined ? { key: item.key } : { key_base64: item.key_base64 };
}

function legible(byte) {
    return byte >= 0x20 && byte < 0x7f && byte !== 0x5c
        ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
}

/// A key as the rest of a path, each byte of it that is not plain escaped.
export function keyPath(key) {
    const plain = /[A-Za-z0-9_~-]/;
    return [...keyBytes(key)].map((byte) => {
        const character = String.fromCharCode(byte);
        return plain.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    }).join('');
}

/// The text of bytes, or null where they are not UTF-8.
export function utf8(bytes) {
    try {
        return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
        return null;
    }
}

/// Bytes without a character that a cut at the end has torn.
export function withoutTornEnd(bytes) {
    for (let back = 1; back <= 3 && back <= bytes.length; back += 1) {
        const byte = bytes[bytes.length - back];
        if ((byte & 0xc0) === 0x80) {
            continue;
        }
        const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        return needed > back ? bytes.subarray(0, bytes.length - back) : bytes;
    }
    return bytes;
}

export function fromBase64(text) {
    const decoded = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
    return Uint8Array.from(decoded, (character) => character.charCodeAt(0));
}

export function toBase64(bytes) {
    let text = '';
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
        text += String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES));
    }
    return btoa(text);
}

/// Lines of an offset, bytes, and what of them is printable ASCII.
export function hexDump(bytes) {
    const lines = [];
    for (let at = 0; at < bytes.length; at += BYTES_OF_A_LINE) {
        const line = [...bytes.subarray(at, at + BYTES_OF_A_LINE)];
        const hex = line.map((byte) => byte.toString(16).padStart(2, '0')).join(' ').padEnd(BYTES_OF_A_LINE * 3 - 1);
        const text = line.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
        lines.push(`${at.toString(16).padStart(6, '0')}  ${hex}  ${text}`);
    }
    return lines.join('\n');
}
