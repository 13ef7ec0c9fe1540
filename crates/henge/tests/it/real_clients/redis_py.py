"""redis-py against a node: what a program does with it, in both protocols. Takes the port; prints "ok" at the end."""

import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PORT = int(sys.argv[1])

# Every byte there is, and what a decoder of lines would trip over.
BINARY = bytes(range(256)) + b"\r\n$-1\r\n\x00"


def client(protocol, **options):
    return redis.Redis(host="127.0.0.1", port=PORT, protocol=protocol, **options)


def refused(error, text, call, *arguments, **options):
    """The call raises exactly this class of error, with this text."""
    try:
        answer = call(*arguments, **options)
    except redis.RedisError as found:
        assert type(found) is error and str(found) == text, repr(found)
    else:
        raise AssertionError(f"no error, but {answer!r}")


def strings(protocol):
    r = client(protocol)
    assert r.ping() is True
    assert r.set("k", "v") is True
    assert r.get("k") == b"v" and r["k"] == b"v"
    assert r.get("missing") is None
    assert r.set("k", "w", nx=True) is None
    assert r.set("missing", "w", xx=True) is None
    assert r.set("k", "w", get=True) == b"v"
    assert r.set("k", "x", ex=100) is True and 0 < r.ttl("k") <= 100
    assert r.set("k", "y", keepttl=True) is True and r.ttl("k") > 0
    assert r.set("k", "z", px=100_000) is True and 0 < r.pttl("k") <= 100_000
    assert r.getex("k", persist=True) == b"z" and r.ttl("k") == -1
    assert r.getdel("k") == b"z" and r.exists("k") == 0
    assert r.setnx("n", 1) is True and r.setnx("n", 2) is False
    assert r.incr("n") == 2 and r.decrby("n", 5) == -3 and r.incrbyfloat("n", 0.5) == -2.5
    assert r.append("a", "hello") == 5 and r.strlen("a") == 5
    assert r.getrange("a", 1, -2) == b"ell" and r.setrange("a", 1, "ipp") == 5
    assert r.get("a") == b"hippo" and r.getset("a", "new") == b"hippo"
    assert r.mset({"m1": "1", "m2": 2, "m3": 3.5}) is True
    assert r.mget("m1", "none", "m3") == [b"1", None, b"3.5"]
    assert r.msetnx({"{m}1": "1", "{m}2": "2"}) is True
    assert r.msetnx({"{m}1": "1", "{m}3": "2"}) is False
    assert r.setbit("bits", 7, 1) == 0 and r.getbit("bits", 7) == 1
    assert r.bitcount("bits") == 1 and r.bitpos("bits", 1) == 7
    assert r.setrange("{b}1", 0, b"\xf0") == 1 and r.set("{b}2", b"\x3c") is True
    assert r.bitop("AND", "{b}3", "{b}1", "{b}2") == 1 and r.get("{b}3") == b"\x30"
    assert r.delete("k", "n", "a", "none") == 2 and r.unlink("m1", "m2") == 2


def keys(protocol):
    r = client(protocol, decode_responses=True)
    assert r.flushdb() is True and r.dbsize() == 0
    names = {f"scan:{n}" for n in range(2_500)}
    pipeline = r.pipeline(transaction=False)
    for name in names:
        pipeline.set(name, "x")
    assert pipeline.execute() == [True] * len(names)
    r.set("other", "x")
    assert r.dbsize() == len(names) + 1
    found = list(r.scan_iter(match="scan:*", count=100))
    assert len(found) == len(names) and set(found) == names
    assert set(r.scan_iter(_type="string")) == names | {"other"}
    assert list(r.scan_iter(_type="hash")) == []
    assert set(r.keys("scan:1?")) == {f"scan:1{n}" for n in range(10)}
    assert r.randomkey() in names | {"other"}
    assert r.type("other") == "string" and r.type("none") == "none"
    assert r.exists("other", "other", "none") == 2 and r.touch("other", "none") == 1
    assert r.rename("other", "other") is True
    assert r.set("{t}a", 1) and r.rename("{t}a", "{t}b") is True and r.get("{t}b") == "1"
    assert r.renamenx("{t}b", "{t}c") is True and r.copy("{t}c", "{t}d") is True
    assert r.copy("{t}c", "{t}d") is False and r.copy("{t}c", "{t}d", replace=True) is True
    assert r.expire("{t}c", 100) is True and r.expire("{t}c", 50, gt=True) is False
    assert r.expire("none", 100) is False and r.persist("{t}c") is True
    assert r.expireat("{t}c", 33_177_117_420) is True and r.expiretime("{t}c") == 33_177_117_420
    assert r.pexpireat("{t}c", 33_177_117_420_123) is True
    assert r.pexpiretime("{t}c") == 33_177_117_420_123
    assert r.ttl("{t}d") == -1 and r.ttl("none") == -2
    assert r.expire("{t}d", 0) is True and r.exists("{t}d") == 0
    assert r.object("encoding", "{t}c") == "int" and r.object("refcount", "{t}c") == 1
    assert r.memory_usage("{t}c") > 0 and r.memory_usage("none") is None
    assert r.flushall() is True and r.dbsize() == 0


def pipelines(protocol):
    r = client(protocol)
    with r.pipeline(transaction=False) as pipeline:
        pipeline.set("p", 1).incr("p").get("p").incr("text").set("text", "x").incr("text").ttl("p")
        *answers, error, ttl = pipeline.execute(raise_on_error=False)
    assert answers == [True, 2, b"2", 1, True] and ttl == -1
    assert type(error) is redis.ResponseError and "not an integer" in str(error), repr(error)
    with r.pipeline(transaction=False) as pipeline:
        for n in range(20_000):
            pipeline.set(f"deep:{n}", n)
            pipeline.get(f"deep:{n}")
        answers = pipeline.execute()
    assert answers[::2] == [True] * 20_000
    assert answers[1::2] == [str(n).encode() for n in range(20_000)]
    # More in replies than a socket holds, while the next requests are still being sent.
    r.set("wide", b"w" * 100_000)
    with r.pipeline(transaction=False) as pipeline:
        for _ in range(200):
            pipeline.get("wide")
        assert pipeline.execute() == [b"w" * 100_000] * 200


def values(protocol):
    r = client(protocol)
    assert r.set(BINARY, BINARY) is True and r.get(BINARY) == BINARY
    assert r.set("empty", b"") is True and r.get("empty") == b""
    assert BINARY in set(r.scan_iter()) and r.echo(BINARY) == BINARY
    large = bytes(n * 7 % 251 for n in range(1 << 16)) * 128
    assert r.set("large", large) is True and r.strlen("large") == len(large)
    assert r.get("large") == large and r.getrange("large", -5, -1) == large[-5:]
    assert r.mget("large", "empty", "large") == [large, b"", large]
    assert r.delete("large", "empty", BINARY) == 3
    text = client(protocol, decode_responses=True)
    assert text.set("ключ", "значение 🗿") is True and text.get("ключ") == "значение 🗿"


def errors(protocol):
    r = client(protocol)
    wrong = redis.ResponseError
    number = "value is not an integer or out of range"
    r.set("text", "x")
    refused(wrong, number, r.incr, "text")
    refused(wrong, "value is not a valid float", r.incrbyfloat, "text", 1)
    refused(wrong, "invalid expire time in 'set' command", r.set, "k", "v", ex=0)
    refused(wrong, "syntax error", r.execute_command, "SET", "k", "v", "MAYBE")
    refused(wrong, "wrong number of arguments for 'get' command", r.execute_command, "GET")
    refused(wrong, "no such key", r.rename, "{n}one", "{n}two")
    refused(wrong, "offset is out of range", r.setrange, "text", -1, "x")
    refused(wrong, "DB index is out of range", r.select, 1)
    for call, name in [
        (lambda: r.lpush("l", 1), "LPUSH"),
        (lambda: r.hset("h", "f", 1), "HSET"),
        (lambda: r.publish("c", "m"), "PUBLISH"),
        (lambda: r.execute_command("MULTI"), "MULTI"),
    ]:
        try:
            call()
        except redis.ResponseError as error:
            assert str(error).startswith(f"unknown command '{name}'"), repr(error)
        else:
            raise AssertionError(name)
    # After all of them the connection is in step.
    assert r.get("text") == b"x"


def connections(protocol):
    r = client(protocol, client_name="a-name", single_connection_client=True)
    assert r.client_getname() in (b"a-name", "a-name")
    assert r.client_setname("another") is True and r.client_id() > 0
    (me,) = [entry for entry in r.client_list() if entry["name"] == "another"]
    assert int(me["id"]) == r.client_id() and me["resp"] == str(protocol), me
    assert me["lib-name"].startswith("redis-py") and me["lib-ver"] == redis.__version__, me
    assert r.client_info()["name"] == "another"
    assert r.client_no_evict("ON") and r.client_no_touch("ON")

    # A connection that somebody kills is opened again, within the retries that were asked for.
    other = client(protocol, retry=Retry(NoBackoff(), 1), single_connection_client=True)
    other_id = other.client_id()
    assert r.client_kill_filter(_id=other_id) == 1
    assert other.ping() is True and other.client_id() > other_id
    without = client(protocol, retry=Retry(NoBackoff(), 0), single_connection_client=True)
    assert r.client_kill_filter(_id=without.client_id()) == 1
    try:
        without.ping()
        raise AssertionError("it was killed")
    except redis.ConnectionError:
        pass
    assert without.ping() is True

    # Writes wait while they are paused, reads do not.
    assert r.client_pause(100_000, all=False) is True
    assert other.get("text") == b"x"
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(other.set("paused", 1)))
    waiting.start()
    assert r.client_unpause() and waiting.join() is None and answers == [True]

    checked = client(protocol, health_check_interval=1e-9)
    assert checked.set("k", 1) is True and checked.get("k") == b"1"
    assert r.execute_command("RESET") in (b"RESET", "RESET")
    url = redis.from_url(f"redis://127.0.0.1:{PORT}/0?protocol={protocol}&decode_responses=True")
    assert url.get("k") == "1"
    for one in (r, other, without, checked, url):
        one.close()


def server(protocol):
    r = client(protocol, decode_responses=True)
    info = r.info()
    assert int(info["redis_version"].split(".")[0]) >= 7 and info["tcp_port"] == PORT, info
    assert info["loading"] == 0 and info["connected_clients"] >= 1 and info["used_memory"] > 0
    assert info["role"] == "master" and info["uptime_in_seconds"] >= 0
    assert info["db0"]["keys"] == r.dbsize(), info["db0"]
    assert r.info("memory")["used_memory"] > 0
    assert r.info("commandstats")["cmdstat_get"]["calls"] > 0
    assert "maxmemory" in r.config_get("maxmemory*")
    assert r.config_get("save", "appendonly") == {"save": "3600 1", "appendonly": "yes"}
    assert r.config_get("appendfsync") == {"appendfsync": "everysec"}
    saved = r.lastsave()
    assert r.save() is True and r.lastsave() >= saved
    assert r.bgsave()
    assert r.config_set("slowlog-log-slower-than", 0) is True
    assert r.slowlog_reset() is True
    r.get("slow")
    assert r.config_set("slowlog-log-slower-than", 10_000) is True
    assert r.slowlog_len() >= 1
    commands = [entry["command"] for entry in r.slowlog_get(16)]
    assert any(command in ("GET slow", b"GET slow") for command in commands), commands
    assert r.config_resetstat() is True
    seconds, micros = r.time()
    assert seconds > 1_600_000_000 and 0 <= micros < 1_000_000
    assert r.role()[0] in ("master", b"master")
    assert r.wait(0, 10) == 0 and r.memory_stats()["total.allocated"] > 0
    assert r.command_count() > 50 and r.command()["get"]["arity"] == 2
    assert r.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]


def threads(protocol):
    """Fifty threads on a pool of ten connections, which wait for one another."""
    pool = redis.BlockingConnectionPool(
        host="127.0.0.1", port=PORT, protocol=protocol, max_connections=10, timeout=60
    )
    r = redis.Redis(connection_pool=pool)
    r.delete("shared")
    failures = []

    def work(me):
        try:
            for n in range(20):
                key = f"thread:{me}:{n}"
                assert r.set(key, key) is True and r.get(key) == key.encode()
                r.incr("shared")
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures, failures
    assert r.get("shared") == b"1000"
    pool.disconnect()


for protocol in (2, 3):
    for part in (strings, keys, pipelines, values, errors, connections, server, threads):
        part(protocol)
# As it comes, without a choice of protocol.
assert redis.Redis(port=PORT).ping() is True
print("ok")
