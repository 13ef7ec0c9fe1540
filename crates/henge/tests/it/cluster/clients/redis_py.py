"""redis-py against the nodes of a cluster: the same program with a plain client of each node and with the client that knows
the map, in both protocols. Takes the addresses of all nodes, or of one that is alone; prints "ok" at the end."""

import sys

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisClusterException

NODES = [tuple(address.rsplit(":", 1)) for address in sys.argv[1:]]
NODES = [(host, int(port)) for host, port in NODES]

# Every byte there is, and what a decoder of lines would trip over.
BINARY = bytes(range(256)) + b"\r\n$-1\r\n\x00"
LARGE = bytes(n * 7 % 256 for n in range(1 << 20))


def refused(text, call, *arguments, **options):
    """The call raises an error, of the server or of the client, with this in its text."""
    try:
        answer = call(*arguments, **options)
    except (redis.RedisError, RedisClusterException) as error:
        assert text in str(error), repr(error)
    else:
        raise AssertionError(f"no error, but {answer!r}")


def one_key(r):
    names = [f"k{n}" for n in range(300)]
    for name in names:
        assert r.set(name, f"value of {name}") is True
    for name in names:
        assert r.get(name) == f"value of {name}".encode()
    for n in range(100):
        key = f"n{n}"
        assert r.incr(key) == 1 and r.incrby(key, 41) == 42 and r.decr(key) == 41
        assert r.incrbyfloat(key, 0.5) == 41.5
        assert r.setnx(key, "x") is False and r.setnx(f"new{n}", "x") is True
        assert r.set(key, "y", nx=True) is None and r.set(key, "y", xx=True, get=True) == b"41.5"
        assert r.expire(key, 100) is True and 0 < r.ttl(key) <= 100
        assert r.persist(key) is True and r.ttl(key) == -1 and r.ttl(f"none{n}") == -2
        assert r.set(key, "z", px=100_000) is True and 0 < r.pttl(key) <= 100_000
        assert r.append(key, "!") == 2 and r.strlen(key) == 2 and r.getrange(key, 1, 1) == b"!"
        assert r.type(key) == b"string" and r.getdel(key) == b"z!" and r.get(key) is None
        binary = BINARY + bytes([n])
        assert r.set(binary, binary) is True and r.get(binary) == binary
    for n in range(8):
        assert r.set(f"large{n}", LARGE) is True and r.get(f"large{n}") == LARGE
        refused("not an integer", r.incr, f"large{n}")
        # The client that knows the map looks it up before it asks.
        refused("command", r.execute_command, "lpush", f"large{n}", 1)


def several_keys(r):
    tagged = [f"{{tag}}{n}" for n in range(50)]
    assert r.mset({key: key for key in tagged}) is True
    assert r.mget(tagged + ["{tag}none"]) == [key.encode() for key in tagged] + [None]
    assert r.msetnx({"{tag}0": "x", "{tag}new": "x"}) is False and r.get("{tag}new") is None
    assert r.msetnx({"{other}0": "x", "{other}1": "x"}) is True
    assert r.rename("{tag}0", "{tag}a") is True and r.get("{tag}a") == b"{tag}0"
    assert r.copy("{tag}a", "{tag}b") is True and r.get("{tag}b") == b"{tag}0"
    keys = [f"m{n}" for n in range(100)]
    # The client that knows the map splits these itself, and says that they are not atomic then.
    mset = getattr(r, "mset_nonatomic", r.mset)
    mget = getattr(r, "mget_nonatomic", r.mget)
    assert mset({key: f"v{key}" for key in keys}) in (True, [True] * len(keys))
    assert mget(keys + ["none"]) == [f"v{key}".encode() for key in keys] + [None]
    assert r.exists(*keys, "none", keys[0]) == 101 and r.touch(*keys, "none") == 100
    assert r.delete(*keys[:50], "none") == 50 and r.unlink(*keys[25:]) == 50
    assert r.exists(*keys) == 0 and mget(keys) == [None] * 100


def pipelines(r):
    keys = [f"p{n}" for n in range(200)]
    pipeline = r.pipeline(transaction=False) if isinstance(r, redis.Redis) else r.pipeline()
    for n, key in enumerate(keys):
        pipeline.set(key, n)
        pipeline.incr(key)
        pipeline.get(key)
    expected = [answer for n in range(200) for answer in (True, n + 1, str(n + 1).encode())]
    assert pipeline.execute() == expected
    pipeline.set("text", "x").incr("text").get("text")
    answers = pipeline.execute(raise_on_error=False)
    assert answers[0] is True and answers[2] == b"x", answers
    assert isinstance(answers[1], redis.ResponseError), answers


def all_keys(r):
    r.flushall()
    names = {f"scan:{n}" for n in range(2_000)}
    pipeline = r.pipeline(transaction=False) if isinstance(r, redis.Redis) else r.pipeline()
    for name in names:
        pipeline.set(name, "x")
    pipeline.execute()
    expected = {name.encode() for name in names}
    found = list(r.scan_iter(count=100))
    if isinstance(r, redis.Redis):
        assert len(found) == len(names) and r.dbsize() == len(names)
    else:
        # It adds up what all nodes say, unless it is told to ask one.
        assert r.dbsize(target_nodes=r.get_default_node()) == len(names)
    # Each node is asked for its own, and answers for all, as this connection has not asked for the map.
    assert set(found) == expected
    assert set(r.scan_iter(match="scan:1?", count=100)) == {f"scan:1{n}".encode() for n in range(10)}
    assert set(r.keys("scan:19??")) == {f"scan:{n}".encode() for n in range(1900, 2000)}
    assert r.randomkey() in expected
    r.flushall()
    assert list(r.scan_iter()) == [] and r.dbsize() == 0


def places(cluster):
    """A key that another node has than the key a, if there are several."""
    there = cluster.get_node_from_key("a")
    others = (f"b{n}" for n in range(1_000))
    return next((key for key in others if cluster.get_node_from_key(key) != there), None)


def the_map(cluster):
    """What each node says of the cluster, as the client takes it apart."""
    assert {(node.host, node.port) for node in cluster.get_primaries()} == set(NODES)
    for node in cluster.get_primaries():
        slots = cluster.cluster_slots(target_nodes=node)
        assert sum(high - low + 1 for low, high in slots) == 16_384
        assert {at["primary"][:2] for at in slots.values()} == set(NODES), slots
        nodes = cluster.execute_command("CLUSTER NODES", target_nodes=node)
        assert {f"{host}:{port}" for host, port in NODES} == set(nodes), nodes
        own = nodes[node.name]
        assert own["node_id"] == cluster.cluster_myid(node), own
        assert "myself" in own["flags"], own
        assert all(at["connected"] and "master" in at["flags"] for at in nodes.values()), nodes
        runs = [run for at in nodes.values() for run in at["slots"]]
        assert sum(int(run[-1]) - int(run[0]) + 1 for run in runs) == 16_384
        info = cluster.cluster_info(target_nodes=node)
        assert info["cluster_state"] == "ok" and info["cluster_enabled"] == "1", info
        assert info["cluster_known_nodes"] == str(len(NODES)), info
        assert info["cluster_slots_ok"] == "16384", info
        shards = cluster.cluster_shards(target_nodes=node)
        assert len(shards) == len(NODES), shards
        found = {(node["ip"], node["port"]) for shard in shards for node in shard["nodes"]}
        assert found == set(NODES), shards
        for key in ("a", "{tag}b", "x{}y", "{a}{b}"):
            assert cluster.execute_command("CLUSTER KEYSLOT", key, target_nodes=node) == key_slot(key.encode())


def moved(cluster):
    """A map that is wrong is mended by who has the key."""
    nodes = cluster.get_primaries()
    if len(nodes) == 1:
        return
    for node in nodes:
        # From now on this connection is told where else a key is.
        cluster.execute_command("CLUSTER SLOTS", target_nodes=node)
    count = lambda: sum(
        info.get("errorstat_MOVED", {}).get("count", 0)
        for info in (node.redis_connection.info("errorstats") for node in nodes)
    )
    before = count()
    for n in range(30):
        key = f"moved{n}"
        slot = cluster.keyslot(key)
        wrong = next(node for node in nodes if node != cluster.get_node_from_key(key))
        cluster.nodes_manager.slots_cache[slot] = [wrong]
        assert cluster.set(key, n) is True and cluster.get(key) == str(n).encode()
    assert count() > before


for protocol in (2, 3):
    clients = [redis.Redis(host=host, port=port, protocol=protocol) for host, port in NODES]
    startup = [ClusterNode(host, port) for host, port in NODES]
    clients += [RedisCluster(startup_nodes=[node], protocol=protocol) for node in startup]
    for r in clients:
        r.flushall()
        for part in (one_key, several_keys, pipelines, all_keys):
            part(r)
    plain, cluster = clients[0], clients[-1]
    other = places(cluster)
    if other is not None:
        for r in (plain, cluster):
            assert r.set("a", 1) is True and r.set(other, 1) is True
        refused("same slot", plain.rename, "a", other)
        refused("same slot", plain.msetnx, {"a": 1, other: 2})
        refused("slot", cluster.rename, "a", other)
    with RedisCluster(startup_nodes=startup, protocol=protocol, decode_responses=True) as texts:
        the_map(texts)
    moved(cluster)
    for r in clients:
        r.close()
print("ok")
