//! What this node says of itself: its token to whoever asks, and whether it may show addresses now.

use super::{Live, Pipeline};
use crate::identity::NodeKey;
use crate::local::token::{self, Asked, Token};
use crate::model::{Now, Qtype};
use crate::readiness::Report;
use crate::reply;
use crate::wire::Query;

/// Labels of the token's zone, and how long may be remembered that there is nothing, seconds.
const ZONE: (usize, u32) = (3, 5);

impl Pipeline {
    /// Gives the node its key, by which it answers for its token.
    pub fn with_node(mut self, node: &NodeKey) -> Self {
        self.token = Some(Token::new(node));
        self
    }

    /// Answers a question for the node's token, before anything is known of who asks; `false` for every other question.
    pub(super) fn prove(&self, query: &Query<'_>, out: &mut Vec<u8>) -> bool {
        let qname = query.qname.as_ref();
        let Some((token, asked)) = self.token.as_ref().zip(token::asked(qname)) else { return false };
        match asked {
            Asked::Proof(nonce) if query.qtype == Qtype::TXT => reply::text(out, query, &token.text(nonce)),
            _ => {
                let zone = qname.strip_left(qname.label_count().saturating_sub(ZONE.0));
                reply::no_data(out, query, zone, ZONE.1);
            }
        }
        true
    }

    /// The node's token, where it has one.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Whether enforced sessions may be shown addresses, as far as the lockdown goes.
    pub(super) fn holds(&self, live: &Live, now: Now) -> bool {
        !live.needs_lockdown() || self.gate.is_whole(now.mono)
    }

    /// The last report on readiness, as good as it is by now.
    pub fn readiness(&self, now: Now) -> Report {
        self.gate.report(now.mono)
    }
}
