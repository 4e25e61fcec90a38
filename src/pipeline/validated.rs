//! Answers are checked against their signatures before they are kept or shown, where the configuration wants it.
//!
//! [`crate::validate`] judges and says what it lacks; here it is asked for, by the same exchanges as any question, so that
//! who asks for the same keys at once shares one. Look-ups are charged to nobody: they are functions of names that the
//! upstream has by then. They go to no session, and into no answer that is kept.

use tokio::time::Instant;

use super::{Live, Pipeline};
use crate::answer::{Asked, Kind, Vetted};
use crate::clock;
use crate::forward::{ForwardError, Response};
use crate::model::Ede;
use crate::policy::Permit;
use crate::validate::{Step, Unknown, Validator, Verdict, Work};

/// Why an answer is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unproved {
    /// What the client is told (RFC 8914).
    pub(super) ede: Ede,
    /// In words.
    pub(super) text: &'static str,
}

impl Pipeline {
    /// Checks `vetted`, which was made of `response`, within the limits and at most until `until`. An answer that is secure
    /// gets AD (RFC 6840 section 5.8) and lives no longer than its signatures; one that is insecure gets none.
    ///
    /// A client that checks for itself (CD), where that is allowed, gets what came, as it came, which is kept apart; a failure
    /// is one either way.
    ///
    /// # Errors
    /// It is bogus, or could not be found out: nothing of it may be shown, kept or pinned.
    pub(super) async fn validate(
        &self,
        live: &Live,
        permit: &Permit,
        response: &Response,
        vetted: &mut Vetted,
        until: Instant,
    ) -> Result<(), Unproved> {
        let is_left_to_client = permit.checking_disabled() && live.allow_cd;
        let is_checked = !is_left_to_client && vetted.kind != Kind::Failure;
        let Some(validator) = live.validator.as_ref().filter(|_| is_checked) else { return Ok(()) };
        let mut work = Work::new(validator.limits());
        let verdict = self.judge(live, validator, permit, response, until, &mut work).await;
        self.validated.note(verdict, &work);
        let (answer, whole) = (&mut vetted.answer, vetted.whole);
        answer.authentic_data = false;
        match verdict {
            Verdict::Secure { ttl } => {
                answer.authentic_data = whole;
                answer.ttl = answer.ttl.min(ttl);
                Ok(())
            }
            Verdict::Insecure => Ok(()),
            Verdict::Bogus(why) => Err(Unproved { ede: why.ede(), text: why.text() }),
            Verdict::Indeterminate(why) => Err(Unproved { ede: Ede::DnssecIndeterminate, text: why.text() }),
        }
    }

    async fn judge(
        &self,
        live: &Live,
        validator: &Validator,
        permit: &Permit,
        response: &Response,
        until: Instant,
        work: &mut Work,
    ) -> Verdict {
        let until = until.min(Instant::now() + validator.limits().time);
        loop {
            let asked = Asked::from(permit);
            let need = match validator.judge(&response.wire, asked, &live.answers, clock::now(), work) {
                Step::Done(verdict) => return verdict,
                Step::Ask(need) => need,
            };
            if let Err(verdict) = work.look_up() {
                return verdict;
            }
            let reply = match self.forwarder.look_up_keys(&need, until).await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::debug!(%error, "keys could not be looked up");
                    let is_late = matches!(error, ForwardError::Late(_));
                    let why = if is_late { Unknown::Time } else { Unknown::Unanswered };
                    return Verdict::Indeterminate(why);
                }
            };
            let learned = validator.learn(&need, &reply.wire, clock::now(), work);
            reply.kept();
            if let Err(verdict) = learned {
                return verdict;
            }
        }
    }
}
