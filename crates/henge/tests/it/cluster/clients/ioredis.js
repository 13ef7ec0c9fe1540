// ioredis against the nodes of a cluster: the same program with a plain client of each node and with the client that knows
// the map. Takes the addresses of all nodes, or of one that is alone; prints "ok" at the end.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const Redis = require("ioredis");
const slotOf = require("cluster-key-slot");

const nodes = process.argv.slice(2).map((address) => {
  const at = address.lastIndexOf(":");
  return { host: address.slice(0, at), port: Number(address.slice(at + 1)) };
});

const range = (count) => Array.from({ length: count }, (_, n) => n);

async function oneKey(redis) {
  const names = range(300).map((n) => `k${n}`);
  const set = await Promise.all(names.map((name) => redis.set(name, `value of ${name}`)));
  assert.ok(set.every((reply) => reply === "OK"));
  const values = await Promise.all(names.map((name) => redis.get(name)));
  assert.deepEqual(values, names.map((name) => `value of ${name}`));
  for (const n of range(50)) {
    const key = `n${n}`;
    assert.equal(await redis.incr(key), 1);
    assert.equal(await redis.incrby(key, 41), 42);
    assert.equal(await redis.setnx(key, "x"), 0);
    assert.equal(await redis.set(key, "y", "XX", "GET"), "42");
    assert.equal(await redis.expire(key, 100), 1);
    const ttl = await redis.ttl(key);
    assert.ok(ttl > 0 && ttl <= 100, String(ttl));
    assert.equal(await redis.ttl(`none${n}`), -2);
    assert.equal(await redis.getdel(key), "y");
    const binary = Buffer.from(range(256).concat([13, 10, n]));
    assert.equal(await redis.set(binary, binary), "OK");
    assert.ok(binary.equals(await redis.getBuffer(binary)));
  }
  const large = Buffer.alloc(1 << 20, "0123456789");
  for (const n of range(8)) {
    assert.equal(await redis.set(`large${n}`, large), "OK");
    assert.ok(large.equals(await redis.getBuffer(`large${n}`)));
    await assert.rejects(redis.incr(`large${n}`), { message: /not an integer/ });
  }
}

async function severalKeys(redis) {
  const tagged = range(50).map((n) => `{tag}${n}`);
  assert.equal(await redis.mset(...tagged.flatMap((key) => [key, key])), "OK");
  assert.deepEqual(await redis.mget(...tagged, "{tag}none"), [...tagged, null]);
  assert.equal(await redis.msetnx("{tag}0", "x", "{tag}new", "x"), 0);
  assert.equal(await redis.rename("{tag}0", "{tag}a"), "OK");
  assert.equal(await redis.exists("{tag}a", "{tag}0", "{tag}1"), 2);
  // ioredis sends a command whole, by its first key; any node of Henge asks the others for their part.
  const keys = range(100).map((n) => `m${n}`);
  assert.equal(await redis.mset(...keys.flatMap((key) => [key, `v${key}`])), "OK");
  assert.deepEqual(await redis.mget(...keys, "none"), [...keys.map((key) => `v${key}`), null]);
  assert.equal(await redis.exists(...keys, "none", keys[0]), 101);
  assert.equal(await redis.touch(...keys, "none"), 100);
  assert.equal(await redis.del(...keys.slice(0, 50), "none"), 50);
  assert.equal(await redis.unlink(...keys.slice(25)), 50);
}

async function pipelines(redis) {
  // A pipeline of this client has keys of one node.
  const pipeline = redis.pipeline();
  for (const n of range(200)) {
    pipeline.set(`{pipe}${n}`, n).incr(`{pipe}${n}`).get(`{pipe}${n}`);
  }
  const replies = await pipeline.set("{pipe}", "x").incr("{pipe}").get("{pipe}").exec();
  for (const n of range(200)) {
    const expected = [[null, "OK"], [null, n + 1], [null, `${n + 1}`]];
    assert.deepEqual(replies.slice(3 * n, 3 * n + 3), expected);
  }
  assert.match(replies[601][0].message, /not an integer/);
  assert.deepEqual(replies[602], [null, "x"]);
}

async function allKeys(redis) {
  await redis.flushall();
  const names = range(2_000).map((n) => `scan:${n}`);
  await Promise.all(names.map((name) => redis.set(name, "x")));
  const one = redis instanceof Redis.Cluster ? redis.nodes("master") : [redis];
  for (const node of one) {
    const found = [];
    for await (const keys of node.scanStream({ match: "scan:*", count: 500 })) {
      found.push(...keys);
    }
    // No connection of this client asks for the map, so each node answers for all.
    assert.deepEqual(found.sort(), [...names].sort());
  }
  assert.equal(await redis.dbsize(), 2_000);
  assert.equal((await redis.keys("scan:19??")).length, 100);
  assert.equal(await redis.flushall(), "OK");
  assert.equal(await redis.dbsize(), 0);
}

async function theMap(redis) {
  for (const key of ["a", "{tag}b", "x{}y", "{a}{b}"]) {
    assert.equal(await redis.cluster("KEYSLOT", key), slotOf(key));
  }
  assert.match(await redis.cluster("INFO"), /^cluster_state:ok\r\n/);
  assert.equal((await redis.cluster("NODES")).trim().split("\n").length, nodes.length);
}

// A map that is wrong is mended by who has the key.
async function moved(cluster) {
  const masters = cluster.nodes("master");
  assert.equal(masters.length, nodes.length);
  if (masters.length === 1) {
    return;
  }
  // From now on these connections are told where else a key is.
  await Promise.all(masters.map((node) => node.cluster("SLOTS")));
  const count = async () => {
    const pages = await Promise.all(masters.map((node) => node.info("errorstats")));
    return pages.reduce((sum, page) => sum + Number(/errorstat_MOVED:count=(\d+)/.exec(page)?.[1] ?? 0), 0);
  };
  const before = await count();
  for (const n of range(30)) {
    const key = `moved${n}`;
    const owner = cluster.slots[slotOf(key)][0];
    const wrong = nodes.map(({ host, port }) => `${host}:${port}`).find((node) => node !== owner);
    cluster.slots[slotOf(key)] = [wrong];
    assert.equal(await cluster.set(key, n), "OK");
    assert.equal(await cluster.get(key), `${n}`);
  }
  assert.ok((await count()) > before);
}

async function main() {
  for (const node of nodes) {
    const plain = () => new Redis({ ...node, retryStrategy: null });
    const cluster = () => new Redis.Cluster([node], { clusterRetryStrategy: null });
    for (const connect of [plain, cluster]) {
      const redis = connect();
      redis.on("error", (error) => {
        throw error;
      });
      await once(redis, "ready");
      for (const part of [oneKey, severalKeys, pipelines, allKeys]) {
        await redis.flushall();
        await part(redis);
      }
      if (redis instanceof Redis.Cluster) {
        await moved(redis);
      }
      await theMap(redis);
      assert.equal(await redis.quit(), "OK");
    }
  }
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
