//! The allocator's figures in a program that uses it, as the `henge` binary does.

use henge::allocator::{self, Allocator};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[test]
fn it_is_noticed_rounds_up_and_counts_what_it_holds() {
    assert!(allocator::in_use());

    for bytes in [0, 1, 24, 1000, 65_536, 100_000, 1 << 20, (64 << 20) + 1] {
        let rounded = allocator::rounded_size(bytes);
        assert!(rounded >= bytes.max(1), "{bytes} became {rounded}");
        // Size classes are an eighth to a fifth apart, and small ones at least a word.
        assert!(
            rounded <= bytes + bytes / 4 + 16,
            "{bytes} became {rounded}"
        );
    }

    let before = allocator::committed_bytes().expect("it is in use");
    let held = black_box(vec![1_u8; 64 << 20]);
    let during = allocator::committed_bytes().expect("it is in use");
    assert!(during > before);
    assert!(during >= 64 << 20);
    drop(held);
    allocator::give_back();
}
