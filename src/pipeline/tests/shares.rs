//! What is booked of questions that find no room in the slow path.

use super::*;

#[test]
fn what_finds_no_room_is_not_charged_though_an_older_answer_is_known() {
    block_on(async {
        let tables = "[[session]]\nid = \"a\"\naddresses = [\"127.0.0.1\"]\ntype = \"interactive\"\n";
        let world = world_for_test::World::new(tables, |_| Says::Address { ttl: 1, last: 5 }).await;
        let question = packet("www.site.example", Qtype::A);
        assert_eq!(outcome(&world.ask(A, &question, clock::now()).await), (0, 1));
        // That answer is past its time and the floor by then, and remembered for whoever is held.
        let then = later(300);
        let mut waiting = Vec::new();
        let refused = loop {
            match world.begin(A, &packet(&format!("n{}.site.example", waiting.len()), Qtype::A), then) {
                Ok(question) => waiting.push(question),
                Err(reply) => break reply,
            }
        };
        assert_eq!(outcome(&refused), (2, 0), "its share is used up");
        let session = world.pipeline.sessions.by_address(A).expect("configured");
        let booked = || {
            let inner = session.inner.lock();
            (inner.counts.forwarded, inner.charged)
        };
        let before = booked();
        for _ in 0..3 {
            let reply = world.begin(A, &question, then).map(|_| ()).expect_err("no room");
            assert_eq!((outcome(&reply), booked()), ((2, 0), before), "nothing leaves");
        }
        waiting.pop();
        assert!(world.begin(A, &question, then).is_ok() && booked().0 == before.0 + 1, "where there is room it does");
    });
}
