// ioredis against a node: what a program does with it. Takes the port; prints "ok" at the end.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const Redis = require("ioredis");

const port = Number(process.argv[2]);

async function strings(redis) {
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.set("k", "v"), "OK");
  assert.equal(await redis.get("k"), "v");
  assert.equal(await redis.get("missing"), null);
  assert.equal(await redis.set("k", "w", "NX"), null);
  assert.equal(await redis.set("k", "w", "XX", "GET"), "v");
  assert.equal(await redis.set("k", "x", "EX", 100), "OK");
  assert.equal(await redis.set("k", "y", "KEEPTTL"), "OK");
  const ttl = await redis.pttl("k");
  assert.ok(ttl > 0 && ttl <= 100_000, String(ttl));
  assert.equal(await redis.getex("k", "PERSIST"), "y");
  assert.equal(await redis.ttl("k"), -1);
  assert.equal(await redis.set("k", "z", "PXAT", 33_177_117_420_123), "OK");
  assert.equal(await redis.pexpiretime("k"), 33_177_117_420_123);
  assert.equal(await redis.getdel("k"), "z");
  assert.equal(await redis.incrby("n", 5), 5);
  assert.equal(await redis.incrbyfloat("n", 0.25), "5.25");
  assert.equal(await redis.mset({ m1: "1", m2: "2" }), "OK");
  assert.deepEqual(await redis.mget("m1", "none", "m2"), ["1", null, "2"]);
  assert.equal(await redis.del("m1", "m2", "none", "n"), 3);
  const binary = Buffer.from(Array.from({ length: 70_000 }, (_, n) => (n * 7) % 256));
  assert.equal(await redis.set(binary.subarray(0, 256), binary), "OK");
  assert.ok(binary.equals(await redis.getBuffer(binary.subarray(0, 256))));
  assert.equal(await redis.set("text", "x"), "OK");
  await assert.rejects(redis.incr("text"), {
    name: "ReplyError",
    message: "ERR value is not an integer or out of range",
  });
  await assert.rejects(redis.lpush("l", 1), { message: /^ERR unknown command 'lpush'/ });
}

async function pipelines(redis) {
  const answers = await redis.pipeline().set("p", 1).incr("p").incr("text").get("p").exec();
  assert.deepEqual(answers[0], [null, "OK"]);
  assert.deepEqual(answers[1], [null, 2]);
  assert.match(answers[2][0].message, /not an integer/);
  assert.deepEqual(answers[3], [null, "2"]);
  const deep = redis.pipeline();
  for (let n = 0; n < 5_000; n++) {
    deep.set(`deep:${n}`, n).get(`deep:${n}`);
  }
  const replies = await deep.exec();
  assert.equal(replies.length, 10_000);
  replies.forEach(([error, reply], n) => {
    assert.equal(error, null);
    assert.equal(reply, n % 2 ? String((n - 1) / 2) : "OK");
  });
}

async function scans(redis) {
  for (const type of [undefined, "string"]) {
    const found = new Set();
    for await (const keys of redis.scanStream({ match: "deep:*", count: 500, type })) {
      keys.forEach((key) => found.add(key));
    }
    assert.equal(found.size, 5_000);
  }
}

// A killed connection is opened again, and what was asked meanwhile is answered then.
async function reconnection(redis) {
  const killer = new Redis({ port, connectionName: "killer", retryStrategy: null });
  assert.equal(await killer.client("GETNAME"), "killer");
  const id = await redis.client("ID");
  const closed = once(redis, "close");
  const ready = once(redis, "ready");
  assert.equal(await killer.client("KILL", "ID", id), 1);
  await closed;
  assert.equal(await redis.get("p"), "2");
  await ready;
  assert.ok((await redis.client("ID")) > id);
  killer.disconnect();
}

async function main() {
  // The check reads INFO, and waits for as long as it says that the server is loading.
  const redis = new Redis({ port, enableReadyCheck: true, retryStrategy: () => 0 });
  redis.on("error", (error) => {
    throw error;
  });
  await once(redis, "ready");
  for (const part of [strings, pipelines, scans, reconnection]) {
    await part(redis);
  }
  // Everything that is asked in one turn goes out as one pipeline.
  const auto = new Redis({ port, enableAutoPipelining: true, keyPrefix: "auto:" });
  const names = Array.from({ length: 1_000 }, (_, n) => `${n}`);
  await Promise.all(names.map((name) => auto.set(name, name)));
  assert.deepEqual(await Promise.all(names.map((name) => auto.get(name))), names);
  assert.match(await redis.info("server"), /redis_version:/);
  assert.equal(await auto.quit(), "OK");
  assert.equal(await redis.quit(), "OK");
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
