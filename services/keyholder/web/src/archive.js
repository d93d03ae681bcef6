/**
 * Zip archives from the network, read without trusting the sizes they state.
 *
 * Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */

import { InvalidClientPackage } from "./errors.js";

const MEMBERS_LIMIT = 64;
const END = 0x06054b50;
const END_BYTES = 22;
const ENTRY = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 1;

/**
 * @param {Uint8Array<ArrayBuffer>} data the archive, without a comment
 * @param {number} limit the most bytes that all members may have together; unpacking stops there,
 *   whatever sizes the archive states
 * @returns {Promise<Map<string, Uint8Array<ArrayBuffer>>>} members by name
 * @throws {InvalidClientPackage} it is damaged, too large, names a member twice, or has too many
 */
export async function readMembers(data, limit) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = data.length - END_BYTES;
  if (end < 0 || view.getUint32(end, true) !== END) throw damaged("it does not end as a zip does");
  const count = view.getUint16(end + 10, true);
  if (count > MEMBERS_LIMIT) throw damaged(`it has more than ${MEMBERS_LIMIT} members`);
  const members = new Map();
  let at = view.getUint32(end + 16, true);
  let left = limit;
  for (let index = 0; index < count; index++) {
    const entry = readEntry(data, view, at);
    if (members.has(entry.name)) throw damaged("it names a member twice");
    const content = await unpack(data, view, entry, left);
    members.set(entry.name, content);
    left -= content.length;
    at = entry.next;
  }
  return members;
}

/**
 * @typedef {{ name: string, method: number, crc: number, packed: number, size: number,
 *   local: number, next: number }} Entry
 */

/**
 * @param {Uint8Array<ArrayBuffer>} data
 * @param {DataView} view
 * @param {number} at
 * @returns {Entry}
 */
function readEntry(data, view, at) {
  if (at + ENTRY_BYTES > data.length || view.getUint32(at, true) !== ENTRY) {
    throw damaged("its list of members ends early");
  }
  if (view.getUint16(at + 8, true) & ENCRYPTED) throw damaged("a member is encrypted");
  const nameEnd = at + ENTRY_BYTES + view.getUint16(at + 28, true);
  return {
    name: new TextDecoder().decode(data.subarray(at + ENTRY_BYTES, nameEnd)),
    method: view.getUint16(at + 10, true),
    crc: view.getUint32(at + 16, true),
    packed: view.getUint32(at + 20, true),
    size: view.getUint32(at + 24, true),
    local: view.getUint32(at + 42, true),
    next: nameEnd + view.getUint16(at + 30, true) + view.getUint16(at + 32, true),
  };
}

/**
 * @param {Uint8Array<ArrayBuffer>} data
 * @param {DataView} view
 * @param {Entry} entry
 * @param {number} limit
 */
async function unpack(data, view, entry, limit) {
  if (entry.size > limit) throw damaged("it unpacks to more bytes than it may");
  const { local } = entry;
  if (local + LOCAL_BYTES > data.length || view.getUint32(local, true) !== LOCAL) {
    throw damaged("a member is not where it should be");
  }
  const start = local + LOCAL_BYTES + view.getUint16(local + 26, true) +
    view.getUint16(local + 28, true);
  if (start + entry.packed > data.length) throw damaged("a member ends early");
  const packed = data.slice(start, start + entry.packed);
  if (entry.method !== STORED && entry.method !== DEFLATED) {
    throw damaged("a member is packed in an unknown way");
  }
  const content = entry.method === STORED ? packed : await inflate(packed, entry.size);
  if (content.length !== entry.size || crc32(content) !== entry.crc) {
    throw damaged("a member is not what the archive states");
  }
  return content;
}

/**
 * @param {Uint8Array<ArrayBuffer>} packed
 * @param {number} size at which unpacking stops
 */
async function inflate(packed, size) {
  const content = new Uint8Array(size);
  let filled = 0;
  try {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    for await (const chunk of chunks(stream)) {
      if (filled + chunk.length > size) throw damaged("a member is larger than the archive states");
      content.set(chunk, filled);
      filled += chunk.length;
    }
  } catch (error) {
    throw error instanceof InvalidClientPackage ? error : damaged("a member cannot be unpacked");
  }
  return content.subarray(0, filled);
}

/**
 * A stream's chunks; not every browser's streams can be iterated over.
 *
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 */
export async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel();
  }
}

/** @param {Uint8Array} content */
function crc32(content) {
  let crc = 0xffffffff;
  for (const byte of content) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** @param {string} why */
function damaged(why) {
  return new InvalidClientPackage(`client.zip is damaged: ${why}`);
}
