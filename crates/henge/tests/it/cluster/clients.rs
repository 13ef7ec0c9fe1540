//! Clients that others wrote, against three nodes and against one that is alone: each client does the same, with a plain
//! connection to each node and as a client that knows the map.

use std::collections::BTreeSet;

use henge_client::{Client, SetOptions};

use super::Ring;
use crate::real_clients::{javascript, python, run_script, start};

fn addresses(ring: &Ring) -> [String; 3] {
    [1, 2, 3].map(|n| ring.address(n).to_string())
}

#[test]
fn redis_py_with_three_nodes() {
    if let Some(python) = python() {
        let ring = Ring::new().formed(3);
        run_script(python, "cluster/clients/redis_py.py", &addresses(&ring));
    }
}

#[test]
fn ioredis_with_three_nodes() {
    if let Some(javascript) = javascript() {
        let ring = Ring::new().formed(3);
        run_script(javascript, "cluster/clients/ioredis.js", &addresses(&ring));
    }
}

#[test]
fn one_node_alone_is_a_cluster_of_one() {
    let node = start();
    let address = [node.address.to_string()];
    if let Some(python) = python() {
        run_script(python, "cluster/clients/redis_py.py", &address);
    }
    if let Some(javascript) = javascript() {
        run_script(javascript, "cluster/clients/ioredis.js", &address);
    }
}

/// Whoever is asked shows the keys of all, and each of them once.
#[test]
fn the_rust_client_scans_three_nodes() {
    let ring = Ring::new().formed(3);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let names: BTreeSet<String> = (0..1_000).map(|n| format!("k{n}")).collect();
    runtime.block_on(async {
        for scheme in ["redis", "http"] {
            let urls = addresses(&ring).map(|address| format!("{scheme}://{address}"));
            let client = Client::connect(&urls.join(",")).await.expect("they listen");
            for name in &names {
                let stored = client.set(name, name, SetOptions::new()).await;
                assert!(stored.expect("it is answered"));
                let found = client.get(name).await.expect("it is answered");
                assert_eq!(found.as_deref(), Some(name.as_bytes()));
            }
            let mut scan = client.scan("k*").page_keys(50);
            let mut found = Vec::new();
            while let Some(page) = scan.next_page().await.expect("it is answered") {
                found.extend(
                    page.iter()
                        .map(|key| String::from_utf8_lossy(key).into_owned()),
                );
            }
            assert_eq!(found.len(), names.len(), "{scheme}");
            assert_eq!(BTreeSet::from_iter(found), names, "{scheme}");
        }
    });
}
