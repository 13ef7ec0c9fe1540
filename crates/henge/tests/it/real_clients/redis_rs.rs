//! The crate `redis` against a node: its typed calls, options, pipelines and scans, in both protocols. It blocks; that others
//! of its kind do not changes nothing on the wire.

use std::collections::BTreeSet;

use redis::{
    ErrorKind, ExistenceCheck, ExpireOption, Expiry, InfoDict, IntegerReplyOrNoOp, RedisResult,
    ScanOptions, ServerErrorKind, SetExpiry, SetOptions, TypedCommands, ValueType,
};

use super::start;

#[test]
fn redis_rs() {
    let node = start();
    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://{}/?protocol={protocol}", node.address);
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_connection().expect("it connects");
        for part in [values, options, lifetimes, pipelines, scans, itself] {
            part(&mut connection).unwrap_or_else(|error| panic!("{protocol}: {error:?}"));
        }
        errors(&mut connection);
        let mut other = client.get_connection().expect("it connects");
        let id = connection.client_id().expect("a number");
        let killed: RedisResult<i64> = redis::cmd("CLIENT")
            .arg(&["KILL", "ID"])
            .arg(id)
            .query(&mut other);
        assert_eq!(killed, Ok(1));
        let error = connection.get("k").expect_err("the connection is closed");
        assert!(error.is_connection_dropped(), "{error:?}");
        other.flushall().expect("it is emptied");
    }
}

fn values(connection: &mut redis::Connection) -> RedisResult<()> {
    assert_eq!(connection.ping()?, "PONG");
    connection.set("k", "v")?;
    assert_eq!(connection.get("k")?.as_deref(), Some("v"));
    assert_eq!(connection.get("none")?, None);
    assert_eq!(connection.key_type("k")?, ValueType::String);
    assert_eq!(connection.key_type("none")?, ValueType::None);
    assert_eq!(connection.append("k", "w")?, 2);
    assert_eq!(connection.strlen("k")?, 2);
    assert_eq!(connection.getrange("k", -1, -1)?, "w");
    assert_eq!(connection.setrange("k", 0, "x")?, 2);
    assert_eq!(connection.getset("k", 41)?.as_deref(), Some("xw"));
    assert_eq!(connection.incr("k", 1)?, 42);
    assert_eq!(connection.decr("k", 2)?, 40);
    let sum: f64 = redis::cmd("INCRBYFLOAT")
        .arg("k")
        .arg(0.5)
        .query(connection)?;
    assert_eq!(sum.to_string(), "40.5");
    connection.mset(&[("m1", "1"), ("m2", "2")])?;
    let read = connection.mget(&["m1", "none", "m2"])?;
    assert_eq!(read, [Some("1".to_owned()), None, Some("2".to_owned())]);
    assert!(connection.mset_nx(&[("{m}1", "1"), ("{m}2", "2")])?);
    assert!(!connection.mset_nx(&[("{m}1", "1"), ("{m}3", "2")])?);
    assert_eq!(connection.del(&["m1", "m2", "none"])?, 2);
    assert!(!connection.setbit("bits", 9, true)?);
    assert!(connection.getbit("bits", 9)?);
    assert_eq!(connection.bitcount("bits")?, 1);
    let bytes: Vec<u8> = (0..=255).collect();
    connection.set(&bytes[..], &bytes[..])?;
    let read: Vec<u8> = redis::cmd("GET").arg(&bytes[..]).query(connection)?;
    assert_eq!(read, bytes);
    let long = vec![b'l'; 8 << 20];
    connection.set("long", &long[..])?;
    let read: Vec<u8> = redis::cmd("GET").arg("long").query(connection)?;
    assert!(read == long);
    Ok(())
}

fn options(connection: &mut redis::Connection) -> RedisResult<()> {
    connection.set("o", "1")?;
    let set = SetOptions::default();
    let absent = set.clone().conditional_set(ExistenceCheck::NX);
    assert_eq!(
        connection
            .set_options("o", "2", absent.get(true))?
            .as_deref(),
        Some("1")
    );
    let there = set.clone().conditional_set(ExistenceCheck::XX);
    let there = there.with_expiration(SetExpiry::PX(100_000));
    assert_eq!(
        connection.set_options("o", "2", there)?.as_deref(),
        Some("OK")
    );
    let kept = set.with_expiration(SetExpiry::KEEPTTL).get(true);
    assert_eq!(
        connection.set_options("o", "3", kept)?.as_deref(),
        Some("2")
    );
    assert!(connection.pttl("o")?.raw() > 0);
    assert_eq!(
        connection.get_ex("o", Expiry::PERSIST)?.as_deref(),
        Some("3")
    );
    assert_eq!(
        connection.ttl("o")?,
        IntegerReplyOrNoOp::ExistsButNotRelevant
    );
    assert_eq!(connection.get_del("o")?.as_deref(), Some("3"));
    assert_eq!(connection.ttl("o")?, IntegerReplyOrNoOp::NotExists);
    Ok(())
}

fn lifetimes(connection: &mut redis::Connection) -> RedisResult<()> {
    connection.set_ex("{l}", "v", 100)?;
    assert!(connection.persist("{l}")?);
    assert!(connection.expire("{l}", 100)?);
    let unless_longer: bool = redis::cmd("EXPIRE")
        .arg("{l}")
        .arg(50)
        .arg(ExpireOption::GT)
        .query(connection)?;
    assert!(!unless_longer);
    assert!(connection.pexpire_at("{l}", 33_177_117_420_123)?);
    assert_eq!(connection.pexpire_time("{l}")?.raw(), 33_177_117_420_123);
    connection.rename("{l}", "{l}2")?;
    assert!(connection.exists("{l}2")? && !connection.exists("{l}")?);
    assert_eq!(connection.expire_time("{l}2")?.raw(), 33_177_117_420);
    Ok(())
}

fn pipelines(connection: &mut redis::Connection) -> RedisResult<()> {
    let (number, text, none): (i64, String, Option<String>) = redis::pipe()
        .set("p", 1)
        .ignore()
        .incr("p", 1)
        .get("p")
        .get("none")
        .query(connection)?;
    assert_eq!((number, &text[..], none), (2, "2", None));
    let mut pipeline = redis::pipe();
    for number in 0..20_000 {
        pipeline.set(format!("deep:{number}"), number).ignore();
        pipeline.get(format!("deep:{number}"));
    }
    let numbers: Vec<u32> = pipeline.query(connection)?;
    assert!(numbers.iter().copied().eq(0..20_000));
    // The connection is in step after an error in the middle.
    let refused: RedisResult<()> = redis::pipe()
        .set("text", "x")
        .incr("text", 1)
        .set("after", "y")
        .query(connection);
    assert!(refused.is_err());
    assert_eq!(connection.get("after")?.as_deref(), Some("y"));
    Ok(())
}

fn scans(connection: &mut redis::Connection) -> RedisResult<()> {
    let options = ScanOptions::default()
        .with_pattern("deep:*")
        .with_count(500);
    let found: RedisResult<BTreeSet<String>> = connection.scan_options(options)?.collect();
    assert_eq!(found?.len(), 20_000);
    Ok(())
}

fn itself(connection: &mut redis::Connection) -> RedisResult<()> {
    connection.client_setname("a-name")?;
    assert_eq!(connection.client_getname()?.as_deref(), Some("a-name"));
    let list: String = redis::cmd("CLIENT").arg("LIST").query(connection)?;
    let name = list.lines().find(|line| line.contains(" name=a-name "));
    assert!(
        name.is_some_and(|line| line.contains(" lib-name=redis-rs ")),
        "{list}"
    );
    let info: InfoDict = redis::cmd("INFO").query(connection)?;
    assert_eq!(info.get::<String>("role").as_deref(), Some("master"));
    assert!(info.get::<u64>("used_memory").is_some());
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query(connection)?;
    assert!(seconds > 1_600_000_000);
    Ok(())
}

fn errors(connection: &mut redis::Connection) {
    connection.set("text", "x").expect("it is set");
    let error = connection.incr("text", 1).expect_err("it is no number");
    assert_eq!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ResponseError)
    );
    assert_eq!(
        error.detail(),
        Some("value is not an integer or out of range")
    );
    let error = connection
        .rename("{a}", "b")
        .expect_err("they are of two slots");
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::CrossSlot));
    let error = connection.lpush("list", 1).expect_err("there are no lists");
    assert_eq!(error.code(), Some("ERR"), "{error:?}");
}
