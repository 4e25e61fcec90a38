//! What a refused name is said to be, type by type: stubs keep an NXDOMAIN for all of them.

use super::*;

#[test]
fn a_name_that_has_the_block_pages_address_exists() {
    const PAGE: &str = "[sinkhole]\nkind = \"address\"\nipv4 = \"203.0.113.80\"\n";
    block_on(async {
        // Response codes and answers to A, AAAA, HTTPS and TXT, which tells why.
        for (page, codes) in [(PAGE, [(0, 1), (0, 0), (0, 0), (0, 1)]), ("", [(3, 0), (3, 0), (3, 0), (0, 1)])] {
            let world = World::new(page).await;
            let session = world.announce("a", A);
            let asked = [Qtype::A, Qtype::AAAA, Qtype::HTTPS, Qtype::TXT];
            let mut told = Vec::new();
            // The second time the verdict stands.
            for qtype in asked.into_iter().chain(asked).chain(asked) {
                told.push(outcome(&world.ask(A, &packet("www.refused.example", qtype), clock::now()).await));
            }
            assert_eq!(told, codes.repeat(3), "{page:?}");
            world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
            let closed = world.ask(A, &packet("www.refused.example", Qtype::HTTPS), clock::now()).await;
            assert_eq!(outcome(&closed), (3, 0), "who is closed is shown no page");
        }
    });
}
