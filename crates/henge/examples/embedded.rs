//! A program with a node inside: `cargo run --example embedded`. It starts one in memory, asks it by the Rust client, and ends it.

use std::error::Error;
use std::time::Duration;

use henge::Node;
use henge_client::{Client, SetOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder()
        .max_size("16MiB")
        .set("cache.policy", "s3fifo")
        .start()?;
    let url = format!("redis://{}", node.local_addr());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::connect(&url).await?;
        let a_minute = SetOptions::new().ttl(Duration::from_mins(1));
        client.set("greeting", "hello", a_minute).await?;
        let value = client.get("greeting").await?;
        assert_eq!(value.as_deref(), Some(&b"hello"[..]));
        Ok::<(), henge_client::Error>(())
    })?;
    node.shutdown();
    Ok(())
}
