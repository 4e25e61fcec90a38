//! What is kept of answers where a configuration, or other trusted keys, come into force.

use std::ops::Deref;

use super::super::world_for_test::{self, Says, block_on};
use super::*;
use crate::cache::Key;
use crate::clock;

/// A key that the configuration trusts.
const KEY: &str = "15 AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

struct World {
    world: world_for_test::World,
    _anchors: tempfile::NamedTempFile,
}

impl Deref for World {
    type Target = world_for_test::World;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

impl World {
    async fn new() -> Self {
        let anchors = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(anchors.path(), format!(". IN DNSKEY 257 3 {KEY}\n")).expect("anchors");
        let tables = format!("[dnssec]\nvalidate = true\ntrust_anchors = {:?}\n", anchors.path());
        Self { world: world_for_test::World::new(&tables, |_| Says::Code(2)).await, _anchors: anchors }
    }

    fn vetting(&self) -> u64 {
        self.pipeline.live.load().vetting()
    }

    /// Keeps an answer that was vetted so; whether it is found.
    fn keeps(&self, vetting: u64) -> bool {
        let qname = staunch_scoring::NameBuf::from_text("a.example").expect("a name");
        let asked = crate::answer::Asked { qname: qname.as_ref(), qtype: Qtype::A, dnssec_ok: false };
        let mut wire = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        wire.extend(qname.as_ref().as_wire());
        wire.extend([0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 203, 0, 113, 7]);
        let vetted = crate::answer::vet(&wire, asked, &self.pipeline.live.load().answers).expect("an answer");
        let (qname, partition) = (qname.as_ref(), Partition::ALL);
        let key = Key { qname, qtype: Qtype::A, dnssec_ok: false, checking_disabled: false, partition };
        let now = clock::now().mono;
        self.pipeline.cache.put(key, vetting, vetted.answer, Box::default(), now, 0, 0);
        self.pipeline.cache.get(key, now).is_some()
    }

    fn revoked(&self) -> usize {
        let live = self.pipeline.live.load();
        live.validator.as_ref().map_or(0, |validator| validator.rollover().count(crate::validate::KeyState::Revoked))
    }
}

#[test]
fn an_answer_that_was_checked_by_a_revoked_key_is_kept_no_more() {
    block_on(async {
        let world = World::new().await;
        let before = world.vetting();
        assert!(world.keeps(before));
        let known = |state: &str| Rollover::read(&format!(". 257 3 {KEY} {state} 0\n")).expect("what is written");
        world.pipeline.trust_keys(&known("pending"));
        assert_eq!(world.vetting(), before, "nothing else is trusted");
        world.pipeline.trust_keys(&known("revoked"));
        assert!(world.pipeline.cache.is_empty());
        assert!(world.vetting() != before && !world.keeps(before), "nor one that was being checked");
        let since = world.vetting();
        assert!(world.keeps(since));
        world.pipeline.trust_keys(&known("revoked"));
        assert_eq!(world.vetting(), since);

        // The file does not have it yet.
        world.reload(&world.text).await;
        assert_eq!((world.vetting(), world.revoked()), (since, 1), "what a reload knows it has from the one before it");
        world.reload(&format!("{}follow_rollover = false\n", world.text)).await;
        assert!(world.revoked() == 0 && !world.keeps(since));
        let since = world.vetting();
        world.pipeline.trust_keys(&known("revoked"));
        assert_eq!(world.vetting(), since, "nobody is to follow it");
    });
}
