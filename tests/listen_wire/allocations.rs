//! What a query costs of the allocator on the way from its octets to its reply.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged; the counter is a plain cell of the thread and allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn parsing_and_replying_allocate_nothing() {
    let mut out = Vec::with_capacity(usize::from(reply::UDP_MAX));
    let packet = query(1, "secret.evil.example");
    let local_packet = query(1, "a.localhost");
    let search = [staunch_scoring::NameBuf::from_text("corp.example").expect("name")];
    let before = ALLOCATIONS.get();
    for packet in [&packet, &local_packet] {
        let Parsed::Query(query) = wire::parse(packet) else { panic!("rejected") };
        match staunch::local::special(query.qname.as_ref(), query.qtype, &search) {
            Some(local) => reply::local(&mut out, &query, &local),
            None => refuse(&query, &mut out),
        }
        reply::servfail(&mut out, &query, Ede::NetworkError, "timed out");
        reply::any_hinfo(&mut out, &query);
        reply::sinkhole_address(&mut out, &query, &[Ipv4Addr::LOCALHOST.into()], 5, Ede::Blocked, "case");
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    drop(vec![0u8; 1]);
    assert_eq!(ALLOCATIONS.get() - before, 1, "the count counts");
}
