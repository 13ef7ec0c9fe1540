//! Large values between real nodes: they come as they went, whichever node is asked and by which protocol, and what was done is done
//! once and in its order.

use super::Ring;
use crate::durability::Resp;
use crate::resp_reply::Reply;

/// Far more than goes over a link for small questions, and than any buffer on the way holds.
const SIZE: usize = 9 << 20;

/// Bytes that differ everywhere and cannot be compressed, from a seed.
fn random(mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        // SplitMix64.
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes
}

/// The same as text.
fn random_text(seed: u64) -> String {
    let bytes = random(seed);
    bytes
        .iter()
        .map(|byte| char::from(b' ' + byte % 64))
        .collect()
}

fn set(key: &str, value: &str) -> String {
    let (key_length, length) = (key.len(), value.len());
    format!("*3\r\n$3\r\nSET\r\n${key_length}\r\n{key}\r\n${length}\r\n{value}\r\n")
}

fn assert_bulk(node: &mut Resp, value: &str) {
    let expected = format!("${}\r\n{value}\r\n", value.len());
    let came = node.read_text(expected.len());
    assert!(
        came == expected,
        "{} bytes came as they did not go",
        expected.len()
    );
}

#[test]
fn large_values_come_as_they_went() {
    let ring = Ring::new().formed(3);
    for n in 1..=3 {
        let (http_value, text) = (random(n as u64), random_text(n as u64));
        let (by_http, by_resp) = (format!("h{n}"), format!("r{n}"));
        let target = format!("/cache/{by_http}");
        let put = ring.http(n).request("PUT", &target, &[], &http_value);
        assert_eq!(put.status, 204, "{}", put.text());
        let mut node = ring.resp(n);
        node.send(&set(&by_resp, &text)).expect("it is sent");
        assert_eq!(node.read_text(5), "+OK\r\n");
        // Two of the three nodes have to ask for it.
        for other in 1..=3 {
            let got = ring.http(other).get(&target);
            assert!(got.status == 200 && got.body == http_value);
            let got = ring.http(other).get(&format!("/cache/{by_resp}"));
            assert!(got.status == 200 && got.body == text.as_bytes());
            let mut node = ring.resp(other);
            node.send(&format!("GET {by_resp}\r\n"))
                .expect("it is sent");
            assert_bulk(&mut node, &text);
        }
        for key in [by_http, by_resp] {
            assert_eq!(ring.ask(n, &format!("DEL {key}")), Reply::Integer(1));
        }
    }
}

/// A large question and a small one behind it go over two connections, and so do two answers.
#[test]
fn what_is_large_keeps_its_place() {
    let ring = Ring::new().formed(3);
    let value = random_text(7);
    for n in 1..=3 {
        let mut node = ring.resp(n);
        let pipeline = [
            "SET k small\r\n",
            &set("k", &value),
            "GET k\r\nSTRLEN k\r\nGETSET k other\r\nGET k\r\n",
        ];
        node.send(&pipeline.concat()).expect("it is sent");
        assert_eq!(node.read_text(10), "+OK\r\n+OK\r\n");
        assert_bulk(&mut node, &value);
        let length = format!(":{SIZE}\r\n");
        assert_eq!(node.read_text(length.len()), length);
        // Each is done once: a second time would find what the first has left.
        assert_bulk(&mut node, &value);
        assert_eq!(node.read_text(11), "$5\r\nother\r\n");
        let pipeline = [
            &set("k", &value),
            "APPEND k !\r\nGETDEL k\r\nEXISTS k\r\nGETDEL k\r\n",
        ];
        node.send(&pipeline.concat()).expect("it is sent");
        let after = format!("+OK\r\n:{}\r\n", SIZE + 1);
        assert_eq!(node.read_text(after.len()), after);
        assert_bulk(&mut node, &format!("{value}!"));
        let gone = ":0\r\n$-1\r\n";
        assert_eq!(node.read_text(gone.len()), gone);
    }
}
