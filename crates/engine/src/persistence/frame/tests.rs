//! Headers and frames against every tear, every flipped bit, and every set of sectors that a loss of power may leave.

use super::*;

const HEADER: Header = Header {
    content: Content::Log,
    format: FORMAT,
    number: 42,
    cipher: 0,
    key_id: 0,
    salt: *b"salt of sixteen!",
};

/// A body without zeros, so that no sector of it is one that was never written.
fn body(len: usize, first: u8) -> Vec<u8> {
    (0..len).map(|n| first.wrapping_add(n as u8) | 1).collect()
}

fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for body in bodies {
        append(HEADER.seed(), body, &mut out).expect("it is short");
    }
    out
}

/// The bodies of the whole frames from the begin on, and what is at the place after the last.
fn read(mut input: &[u8]) -> (Vec<Vec<u8>>, Frame<'_>) {
    let mut bodies = Vec::new();
    loop {
        match frame(HEADER.seed(), input) {
            Frame::Whole { body, len } => {
                bodies.push(body.to_vec());
                input = &input[len..];
            }
            other => return (bodies, other),
        }
    }
}

#[test]
fn the_checksum_is_that_of_the_catalogue() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn headers_say_what_is_wrong_with_them() {
    let good = HEADER.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        bytes.to_vec()
    };
    for (bytes, expected) in [
        (good.to_vec(), Ok(HEADER)),
        ([&good[..], b"more"].concat(), Ok(HEADER)),
        (good[..HEADER_BYTES - 1].to_vec(), Err(HeaderError::Short)),
        (Vec::new(), Err(HeaderError::Short)),
        (with(0, b'h'), Err(HeaderError::Unknown)),
        (with(5, b'S'), Err(HeaderError::Unknown)),
        (with(8, 3), Err(HeaderError::Format(3))),
        (with(9, 1), Err(HeaderError::Format(0x101))),
        (with(16, 43), Err(HeaderError::Checksum)),
        (with(24, 0), Err(HeaderError::Checksum)),
        (with(44, 1), Err(HeaderError::Checksum)),
        (with(47, 0), Err(HeaderError::Checksum)),
    ] {
        assert_eq!(Header::decode(&bytes), expected);
    }
    let snapshot = Header {
        content: Content::Snapshot,
        format: FORMAT,
        ..HEADER
    };
    assert_eq!(Header::decode(&snapshot.encode()), Ok(snapshot));
    assert_ne!(
        HEADER.seed(),
        Header {
            salt: [0; 16],
            ..HEADER
        }
        .seed()
    );
}

/// A header that a crash has cut is no header, is not taken for that of another format, and may be torn.
#[test]
fn a_header_torn_at_every_byte() {
    let whole = HEADER.encode();
    for cut in 0..HEADER_BYTES {
        let mut padded = whole[..cut].to_vec();
        assert_eq!(Header::decode(&padded), Err(HeaderError::Short));
        assert!(Header::may_be_torn(&padded), "cut at {cut}");
        padded.resize(4 * HEADER_BYTES, 0);
        let expected = if cut < 8 {
            HeaderError::Unknown
        } else {
            HeaderError::Checksum
        };
        assert_eq!(Header::decode(&padded), Err(expected), "cut at {cut}");
        assert!(Header::may_be_torn(&padded), "cut at {cut}");
        // What was written behind it was written after it.
        padded[4 * HEADER_BYTES - 1] = 1;
        assert!(!Header::may_be_torn(&padded), "cut at {cut}");
    }
}

/// The sector that it lies in may be the one that a loss of power has left out.
#[test]
fn a_header_whose_sector_is_lost_may_be_torn() {
    let mut file = vec![0; 2 * SECTOR_BYTES];
    file[SECTOR_BYTES] = 1;
    assert!(Header::may_be_torn(&file));
    file[SECTOR_BYTES - 1] = 1;
    assert!(!Header::may_be_torn(&file));
}

/// Whatever bit of a header is wrong, it is refused, and is not taken for one that a crash has cut.
#[test]
fn a_header_flipped_at_every_bit() {
    for bit in 0..HEADER_BYTES * 8 {
        let mut damaged = HEADER.encode();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        assert!(!Header::may_be_torn(&damaged), "bit {bit}");
    }
}

#[test]
fn what_is_no_frame_says_what_it_is() {
    let seed = HEADER.seed();
    let whole = framed(&[b"body".to_vec()]);
    let long = (MAX_BODY_BYTES as u32 + 1).to_le_bytes();
    let other = Header {
        salt: [0; 16],
        ..HEADER
    };
    let replaced = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    for (input, expected) in [
        (Vec::new(), Frame::End),
        (vec![0; 7], Frame::End),
        (vec![0; 100], Frame::End),
        // What is behind eight zeros is for others to look at.
        ([&[0; 8][..], b"something"].concat(), Frame::End),
        (vec![0, 0, 1], Frame::Cut),
        (vec![1, 0, 0, 0, 0, 0, 0, 0], Frame::Cut),
        (whole[..whole.len() - 1].to_vec(), Frame::Cut),
        (vec![0, 0, 0, 0, 1, 0, 0, 0], Frame::Damaged(Damage::Short)),
        (
            [&long[..], &[1; 12]].concat(),
            Frame::Damaged(Damage::Length(MAX_BODY_BYTES as u32 + 1)),
        ),
        (replaced(9, b'x'), Frame::Damaged(Damage::Checksum)),
        (replaced(12, 0), Frame::Damaged(Damage::Checksum)),
    ] {
        assert_eq!(frame(seed, &input), expected, "{input:?}");
    }
    assert_eq!(
        frame(other.seed(), &whole),
        Frame::Damaged(Damage::Checksum),
        "it was taken for a frame of another file"
    );
}

/// Wherever the file ends, exactly the frames that are whole are read, and what follows may be torn.
#[test]
fn torn_at_every_byte() {
    let bodies: Vec<Vec<u8>> = [1, 20, 700, 9].map(|len| body(len, len as u8)).into();
    let whole = framed(&bodies);
    let ends: Vec<usize> = (0..=bodies.len())
        .map(|count| framed(&bodies[..count]).len())
        .collect();
    for cut in 0..=whole.len() {
        let count = ends.iter().filter(|&&end| end <= cut).count() - 1;
        let at = ends[count];
        let expected = if at == cut { Frame::End } else { Frame::Cut };
        let (found, end) = read(&whole[..cut]);
        assert_eq!(
            (&found[..], end),
            (&bodies[..count], expected),
            "cut at {cut}"
        );
        assert!(
            may_be_torn(HEADER.seed(), &whole[..cut], at),
            "cut at {cut} without anything behind"
        );
        // The same where the file was made longer ahead of its use, as far as to the frame's end, a little further, and far.
        for len in [
            ends[(count + 1).min(bodies.len())],
            cut + 1,
            whole.len() + 2_000,
        ] {
            let mut padded = whole[..cut].to_vec();
            padded.resize(len.max(cut), 0);
            let (found, end) = read(&padded);
            assert_eq!(found, &bodies[..count], "cut at {cut} of {len}");
            assert!(!matches!(end, Frame::Whole { .. }));
            assert!(
                may_be_torn(HEADER.seed(), &padded, at),
                "cut at {cut} of {len}: {end:?}"
            );
        }
    }
}

/// Whatever bit of a whole frame is wrong, it is not read, and no crash is to blame: whether it is the last of the file, has
/// room behind it, or has others behind it.
#[test]
fn flipped_at_every_bit() {
    for len in [1, 8, 30, 503, 504, 1_300] {
        let (before, middle) = (body(17, 3), body(len, 5));
        let frames = framed(&[before.clone(), middle.clone()]);
        let at = framed(std::slice::from_ref(&before)).len();
        let behind: [Vec<u8>; 3] = [Vec::new(), vec![0; 3_000], framed(&[body(900, 7)])];
        for behind in &behind {
            let whole = [&frames[..], behind].concat();
            for bit in at * 8..frames.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let (found, end) = read(&damaged);
                assert_eq!(found, std::slice::from_ref(&before), "bit {bit} of {len}");
                assert!(
                    matches!(end, Frame::Cut | Frame::Damaged(_)),
                    "bit {bit} of {len}: {end:?}"
                );
                assert!(
                    !may_be_torn(HEADER.seed(), &damaged, at),
                    "bit {bit} of {len} with {} bytes behind: {end:?}",
                    behind.len()
                );
            }
        }
    }
}

/// A loss of power leaves any of the sectors that a frame was written to, and of the others what was there before: zeros,
/// behind what was written earlier. Whatever place the frame has in its first sector, what is left may be torn.
#[test]
fn any_of_its_sectors_may_be_lost() {
    for (begin, len) in [
        480, 500, 502, 503, 504, 505, 507, 508, 509, 510, 511, 512, 513,
    ]
    .into_iter()
    .flat_map(|begin| [1, 5, 300, 512, 1_100].map(|len| (begin, len)))
    {
        let earlier = body(begin - FRAME_BYTES, 9);
        let later = body(200, 11);
        let before = framed(std::slice::from_ref(&earlier));
        assert_eq!(before.len(), begin);
        let mut after = framed(&[earlier.clone(), body(len, 13), later]);
        let end = framed(&[earlier.clone(), body(len, 13)]).len();
        after.resize(4_096, 0);
        let mut old = before.clone();
        old.resize(4_096, 0);
        let sectors = begin / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES;
        let count = sectors.clone().count();
        // Not all of them are there.
        for there in 0..(1_u32 << count) - 1 {
            let mut left = after.clone();
            for (n, sector) in sectors.clone().enumerate() {
                if there & (1 << n) == 0 {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    left[range.clone()].copy_from_slice(&old[range]);
                }
            }
            if left == after {
                // What was lost was zeros as well.
                continue;
            }
            let (found, end) = read(&left);
            assert_eq!(found, std::slice::from_ref(&earlier));
            let differing = left
                .iter()
                .zip(&after)
                .filter(|(left, after)| left != after);
            let bits: u32 = differing
                .map(|(left, after)| (left ^ after).count_ones())
                .sum();
            if bits == 1 {
                // Nobody can tell it from a bit that was flipped later, and that may have been a bit of what was synced.
                assert!(begin >= 508 && !may_be_torn(HEADER.seed(), &left, begin));
                continue;
            }
            // Zeros where the frame would begin are told from the end of all by what is behind them.
            assert!(
                end == Frame::End || may_be_torn(HEADER.seed(), &left, begin),
                "{len} bytes at {begin}, {there:b} of {count} sectors: {end:?}"
            );
        }
    }
}

/// The same for a frame whose length does not fit into the bytes of it that lie in the first sector, and one lost sector.
#[test]
fn any_sector_of_a_long_frame_may_be_lost() {
    for begin in 505..=512 {
        let earlier = body(begin - FRAME_BYTES, 9);
        let before = framed(std::slice::from_ref(&earlier));
        let whole = framed(&[earlier, body(70_000, 13), body(20, 15)]);
        for sector in begin / SECTOR_BYTES..=(whole.len() - 40) / SECTOR_BYTES {
            let mut left = whole.clone();
            let range = sector * SECTOR_BYTES..whole.len().min((sector + 1) * SECTOR_BYTES);
            left[range.clone()].fill(0);
            let kept = before.len().min(range.end).max(range.start);
            left[range.start..kept]
                .copy_from_slice(&before[range.start.min(before.len())..][..kept - range.start]);
            let (found, end) = read(&left);
            assert_eq!(found.len(), 1);
            assert!(
                end == Frame::End || may_be_torn(HEADER.seed(), &left, begin),
                "sector {sector} of a frame at {begin}: {end:?}"
            );
        }
    }
}

/// A sector in the midst of a frame that is all zeros may be one that was never written.
#[test]
fn a_sector_of_zeros_may_be_torn() {
    let first = body(100, 1);
    let at = framed(std::slice::from_ref(&first)).len();
    let whole = framed(&[first, body(5 * SECTOR_BYTES, 2), body(50, 3)]);
    for sector in 1..5 {
        let mut torn = whole.clone();
        torn[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        assert!(may_be_torn(HEADER.seed(), &torn, at), "sector {sector}");
        // All of it but one byte, and a run as long that is no sector.
        let mut damaged = torn.clone();
        damaged[sector * SECTOR_BYTES + 100] = 1;
        assert!(!may_be_torn(HEADER.seed(), &damaged, at), "sector {sector}");
        let mut damaged = whole.clone();
        damaged[sector * SECTOR_BYTES - 100..][..SECTOR_BYTES].fill(0);
        assert!(!may_be_torn(HEADER.seed(), &damaged, at), "sector {sector}");
    }
}

#[test]
fn what_a_frame_cannot_say_is_not_written() {
    assert_eq!(body_len(MAX_BODY_BYTES), Ok(MAX_BODY_BYTES as u32));
    assert_eq!(body_len(MAX_BODY_BYTES + 1), Err(TooLong));
}
