//! Huge pages for the segments of the shards, and for nothing else: regions of 2 MiB that the system is asked to back by one
//! page each, cut into slices of a segment. A look-up at random then finds more of its addresses translated, and
//! shorter ways to the rest (docs/performance.md has what it gives).
//!
//! What is charged stays what the system sees. Slices are handed out from the lowest region that has one, so that at most
//! one region has slices that were resident before anybody had them, beside spare ones that are ready while regions become
//! more. A slice that is given back splits its page and goes to the system at once, and
//! its region is not to be made a huge page again before it is whole, as the kernel would back the hole with memory.

#![expect(
    unsafe_code,
    reason = "memory from the system for the global allocator; nothing safe gives it by 2 MiB"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Whether there are regions on this system.
pub(super) const HAS: bool = true;
/// What is cut off a region at a time.
const SLICE_BYTES: usize = henge_engine::SEGMENT_BYTES;
/// A huge page of x86-64, and of 64-bit Arm with small pages of 4 KiB. Where huge pages are larger, these stay small ones.
const REGION_BYTES: usize = 2 * 1024 * 1024;
const SLICES: u32 = (REGION_BYTES / SLICE_BYTES) as u32;
const _: () = assert!(SLICES == u32::BITS, "a bit for each slice");

/// For each so many regions, 64 MiB, one more is kept ready while they become more: these are a small part of them then.
const REGIONS_FOR_SPARE: usize = 32;
/// And no more than these: copies of many partitions that come together begin with a few at once.
const MOST_SPARE: usize = 4;
/// Spare regions that nobody needs for so long go.
const SPARE_FOR: Duration = Duration::from_secs(1);

static REGIONS: Mutex<Regions> = Mutex::new(Regions::new());
/// A region was begun with.
static BEGUN: Condvar = Condvar::new();

/// A slice, aligned to its size, with anything in it; null if the system has no memory.
pub(super) fn take() -> *mut u8 {
    REGIONS.lock().take()
}

/// Gives a slice back.
///
/// # Safety
/// It came from `take`, was not given back since, and nobody uses it any more.
pub(super) unsafe fn give_back(slice: *mut u8) {
    // SAFETY: as the caller promises.
    unsafe { REGIONS.lock().give_back(slice) }
}

/// Keeps regions ready whose memory is there, while regions become more: for ever, on a thread of its own. To be given 2 MiB by the
/// system takes it as long as hundreds of requests, and who needs a slice mostly holds a shard.
pub(super) fn keep_spare() -> ! {
    let mut regions = REGIONS.lock();
    loop {
        if regions.is_begun && regions.spare.len() < regions.wanted_spare() {
            match MutexGuard::unlocked(&mut regions, populated) {
                Some(base) => regions.spare.push(base),
                None => regions.is_begun = false,
            }
            continue;
        }
        regions.is_begun = false;
        if regions.spare.is_empty() {
            BEGUN.wait(&mut regions);
        } else if BEGUN.wait_for(&mut regions, SPARE_FOR).timed_out() {
            let spare = std::mem::take(&mut regions.spare);
            let unmap = |base| unmap(base, REGION_BYTES);
            MutexGuard::unlocked(&mut regions, || spare.into_iter().for_each(unmap));
        }
    }
}

/// A region of nobody whose memory is there, as far as the system does that.
fn populated() -> Option<usize> {
    let base = map_region()?;
    advise(base, REGION_BYTES, Advice::LinuxPopulateWrite);
    Some(base)
}

/// Bytes in slices that are in use, and bytes that may be resident.
pub(super) fn figures() -> (u64, u64) {
    REGIONS.lock().figures()
}

/// The regions there are. It allocates for itself, from the other allocator, while it is locked.
struct Regions {
    /// By their addresses.
    all: BTreeMap<usize, Region>,
    /// The addresses of those that have a free slice.
    open: BTreeSet<usize>,
    /// Those that are ready, and not among them.
    spare: Vec<usize>,
    /// One was begun with, since as many were spare as should be.
    is_begun: bool,
}

/// One region, by a bit for each of its slices.
#[derive(Clone, Copy)]
struct Region {
    /// Nobody has them.
    free: u32,
    /// Of the free, those that were given back, and to the system.
    returned: u32,
}

impl Regions {
    const fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            open: BTreeSet::new(),
            spare: Vec::new(),
            is_begun: false,
        }
    }

    fn take(&mut self) -> *mut u8 {
        let Some(base) = self.open.first().copied().or_else(|| self.begin()) else {
            return ptr::null_mut();
        };
        let Some(region) = self.all.get_mut(&base) else {
            broken();
        };
        let slice = region.free.trailing_zeros();
        region.free &= !(1 << slice);
        let was_returned = region.returned & (1 << slice) != 0;
        region.returned &= !(1 << slice);
        if region.free == 0 {
            self.open.remove(&base);
        }
        if was_returned && region.returned == 0 {
            advise(base, REGION_BYTES, Advice::LinuxHugepage);
        }
        ptr::with_exposed_provenance_mut(base + slice as usize * SLICE_BYTES)
    }

    fn wanted_spare(&self) -> usize {
        (self.all.len() / REGIONS_FOR_SPARE).min(MOST_SPARE)
    }

    /// A fresh region's address.
    fn begin(&mut self) -> Option<usize> {
        let base = self.spare.pop().or_else(map_region)?;
        if self.wanted_spare() > 0 {
            self.is_begun = true;
            BEGUN.notify_one();
        }
        let region = Region {
            free: u32::MAX,
            returned: 0,
        };
        self.all.insert(base, region);
        self.open.insert(base);
        Some(base)
    }

    /// # Safety
    /// As [`give_back`].
    unsafe fn give_back(&mut self, slice: *mut u8) {
        let address = slice.expose_provenance();
        let base = address & !(REGION_BYTES - 1);
        let Some(region) = self.all.get_mut(&base) else {
            broken();
        };
        let bit = 1 << ((address - base) / SLICE_BYTES);
        region.free |= bit;
        // SAFETY: it was mapped by `map_aligned`, and nobody has a slice of it.
        if region.free == u32::MAX && unsafe { munmap(at(base), REGION_BYTES) }.is_ok() {
            self.all.remove(&base);
            self.open.remove(&base);
            return;
        }
        self.open.insert(base);
        if region.returned == 0 {
            advise(base, REGION_BYTES, Advice::LinuxNoHugepage);
        }
        // A part of a huge page that is not needed is unmapped, and stays in memory with the rest of it until the machine is
        // short; that it may be freed lazily splits the page, and then it goes. Locked pages stay where they are.
        advise(address, SLICE_BYTES, Advice::LinuxFree);
        if advise(address, SLICE_BYTES, Advice::LinuxDontNeed) {
            region.returned |= bit;
        }
    }

    fn figures(&self) -> (u64, u64) {
        let slices = |bits: fn(&Region) -> u32| -> u64 {
            self.all
                .values()
                .map(|region| u64::from(bits(region).count_zeros()))
                .sum()
        };
        (
            slices(|region| region.free) * SLICE_BYTES as u64,
            slices(|region| region.returned) * SLICE_BYTES as u64
                + (self.spare.len() * REGION_BYTES) as u64,
        )
    }
}

/// A region of nobody.
fn map_region() -> Option<usize> {
    let base = map_aligned()?;
    advise(base, REGION_BYTES, Advice::LinuxHugepage);
    Some(base)
}

/// Memory for one region, aligned to its size. None if the system has none.
fn map_aligned() -> Option<usize> {
    // The kernel aligns what is a multiple of a huge page, or puts it beside the region before, which is aligned.
    let base = map_bytes(REGION_BYTES)?;
    if base.is_multiple_of(REGION_BYTES) {
        return Some(base);
    }
    unmap(base, REGION_BYTES);
    let whole = map_bytes(2 * REGION_BYTES)?;
    let base = whole.next_multiple_of(REGION_BYTES);
    unmap(whole, base - whole);
    unmap(base + REGION_BYTES, whole + REGION_BYTES - base);
    Some(base)
}

fn map_bytes(len: usize) -> Option<usize> {
    // SAFETY: the system chooses the place, so nothing that is there is touched.
    let mapped = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    mapped.ok().map(<*mut c_void>::expose_provenance)
}

/// Undoes what `map_bytes` did, or a part of it, that nobody has seen.
fn unmap(start: usize, len: usize) {
    if len > 0 {
        // SAFETY: these pages were mapped by `map_aligned`, and nobody was given them. Where it fails there are too many mappings,
        // and address space is lost.
        let _ = unsafe { munmap(at(start), len) };
    }
}

/// Says whether the advice was taken. Where it was not, as on a system without huge pages, that costs speed or memory and
/// nothing else.
fn advise(start: usize, len: usize, advice: Advice) -> bool {
    // SAFETY: only regions are advised on, and of slices that are in use no advice given here changes the contents.
    unsafe { madvise(at(start), len, advice) }.is_ok()
}

/// The books of the regions are wrong, or a caller gave what it did not have. An allocator must not unwind.
#[cold]
fn broken() -> ! {
    std::process::abort()
}

fn at(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Takes and gives back by a made-up order, with a mark in each slice, and checks against what is held.
    #[test]
    fn slices_are_apart_and_keep_what_is_in_them() {
        let _alone = ALONE.lock();
        let mut regions = Regions::new();
        let mut held: BTreeMap<usize, u8> = BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..4_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
            // Three waves of growing to some hundred slices and shrinking to few.
            let grows = step % 1_300 < 700;
            if held.is_empty() || (random >> 33) % 10 < if grows { 8 } else { 2 } {
                let slice = regions.take();
                let mark = (random >> 50) as u8;
                assert!(slice.addr().is_multiple_of(SLICE_BYTES));
                // SAFETY: the slice was just taken.
                unsafe { ptr::write_bytes(slice, mark, SLICE_BYTES) };
                assert_eq!(held.insert(slice.expose_provenance(), mark), None);
            } else {
                let nth = (random >> 33) as usize % held.len();
                let (&address, &mark) = held.iter().nth(nth).expect("it is one of them");
                held.remove(&address);
                let slice: *mut u8 = ptr::with_exposed_provenance_mut(address);
                // SAFETY: it is in use until it is given back, once.
                unsafe {
                    let bytes = std::slice::from_raw_parts(slice, SLICE_BYTES);
                    assert!(bytes.iter().all(|&byte| byte == mark));
                    regions.give_back(slice);
                }
            }
            let (in_use, resident) = regions.figures();
            assert_eq!(in_use, (held.len() * SLICE_BYTES) as u64);
            assert!(resident >= in_use && resident < in_use + REGION_BYTES as u64);
            let open = regions.all.iter().filter(|(_, region)| region.free != 0);
            assert!(open.map(|(base, _)| base).eq(&regions.open));
        }
        for address in held.into_keys() {
            // SAFETY: as above.
            unsafe { regions.give_back(ptr::with_exposed_provenance_mut(address)) };
        }
        assert!(regions.all.is_empty() && regions.open.is_empty());
    }

    #[test]
    fn the_spare_region_is_the_next() {
        let _alone = ALONE.lock();
        let mut regions = Regions::new();
        let first = regions.take();
        let spare = populated().expect("the system has memory");
        regions.spare.push(spare);
        let (in_use, resident) = regions.figures();
        assert_eq!(in_use, SLICE_BYTES as u64);
        assert_eq!(resident, 2 * REGION_BYTES as u64, "it is there already");
        let others: Vec<*mut u8> = (0..SLICES).map(|_| regions.take()).collect();
        assert!(regions.spare.is_empty());
        assert!(regions.all.contains_key(&spare));
        for slice in others.into_iter().chain([first]) {
            // SAFETY: it was taken, and is given back once.
            unsafe { regions.give_back(slice) };
        }
        assert!(regions.all.is_empty());
    }

    /// One at a time, as the pages of the whole process are counted.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Of a file of lines of a name and a number.
    fn number(file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(file).expect("Linux has it");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let rest = lines.next().expect("it has the line");
        let number = rest.trim_matches(|c: char| !c.is_ascii_digit());
        number.parse().expect("a number")
    }

    #[test]
    fn what_is_given_back_leaves_memory() {
        const REGIONS: usize = 16;
        let _alone = ALONE.lock();
        let huge = || number("/proc/self/smaps_rollup", "AnonHugePages:") / 2048;
        let split = || number("/proc/vmstat", "thp_split_page ");
        let (huge_before, split_before) = (huge(), split());
        let mut regions = Regions::new();
        let slices: Vec<usize> = (0..REGIONS * SLICES as usize)
            .map(|_| {
                let slice = regions.take();
                // SAFETY: the slice was just taken.
                unsafe { ptr::write_bytes(slice, 1, SLICE_BYTES) };
                slice.expose_provenance()
            })
            .collect();
        let got = huge().saturating_sub(huge_before).min(REGIONS as u64);
        if got == 0 {
            println!("skipped: this machine gives no huge pages");
        }
        let (kept, given): (Vec<usize>, Vec<usize>) = slices
            .into_iter()
            .partition(|slice| slice % REGION_BYTES == 0);
        let mut give_back = |slices: Vec<usize>| {
            for slice in slices {
                // SAFETY: it was taken, and is given back once.
                unsafe { regions.give_back(ptr::with_exposed_provenance_mut(slice)) };
            }
        };
        give_back(given);
        // A page that was not split holds all of its memory as long as one slice of it is in use.
        let parted = split() - split_before;
        assert!(parted >= got, "{parted} of {got} huge pages were split");
        give_back(kept);
        assert!(regions.all.is_empty());
    }
}
