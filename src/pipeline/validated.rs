//! Answers are checked against their signatures before they are kept or shown, where the configuration wants it.
//!
//! [`crate::validate`] judges and says what it lacks; here it is asked for, and beside it what will be lacking next, by the
//! same exchanges as any question, so that who asks for the same keys at once shares one. Look-ups are charged to nobody: they are functions of names that the
//! upstream has by then. They go to no session, and into no answer that is kept.
//!
//! What is bogus may be so at one upstream alone: one that takes signatures out, or that was lied to. So another one is asked
//! once, for the keys or the answer, and counts if what it says is as it was signed; the first one is then one that has failed
//! where another did not.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Live, Pipeline};
use crate::answer::{self, Asked, Kind, Vetted};
use crate::clock;
use crate::forward::{ForwardError, Forwarder, Landed, Response};
use crate::model::Ede;
use crate::partition::Partition;
use crate::policy::Permit;
use crate::validate::{Need, Step, Unchecked, Unknown, Validator, Verdict, Work};

/// Why an answer is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unproved {
    /// What the client is told (RFC 8914).
    pub(super) ede: Ede,
    /// In words.
    pub(super) text: &'static str,
    /// It is not as it was signed.
    pub(super) bogus: bool,
}

impl Pipeline {
    /// As [`Self::check`], for an answer to the permit's own question: where it is bogus, another upstream is asked once, and
    /// `vetted` is made of its answer where that is not.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) async fn validate(
        &self,
        live: &Live,
        permit: &Permit,
        response: &Response,
        vetted: &mut Vetted,
        until: Instant,
    ) -> Result<(), Unproved> {
        let Err(unproved) = self.check(live, permit, response, vetted, until).await else { return Ok(()) };
        if !unproved.bogus {
            return Err(unproved);
        }
        let Some(other) = self.forwarder.resolve_besides(permit, response.upstream, until).await else {
            return Err(unproved);
        };
        let again = match answer::vet(&other.wire, Asked::from(permit), &live.answers) {
            Ok(again) if again.kind != Kind::Failure => Some(again),
            _ => None,
        };
        let checked = match again {
            Some(mut again) => self.check(live, permit, &other, &mut again, until).await.map(|()| again),
            None => Err(unproved),
        };
        if checked.is_ok() {
            self.forwarder.outdone(permit, response.upstream, other.upstream);
        }
        other.kept();
        *vetted = checked.map_err(|_| unproved)?;
        Ok(())
    }

    /// Checks `vetted`, which was made of `response`, within the limits and at most until `until`. An answer that is secure
    /// gets AD (RFC 6840 section 5.8) and lives no longer than its signatures; one that is insecure gets none, and where it is
    /// because it cannot be checked here, the client is told.
    ///
    /// A client that checks for itself (CD), where that is allowed, gets what came, which is kept apart, and without AD: what
    /// the upstream says of itself counts for nothing where answers are checked here (RFC 4035 section 3.2.3). A failure is one
    /// either way.
    ///
    /// # Errors
    /// It is bogus, or could not be found out: nothing of it may be shown, kept or pinned.
    pub(super) async fn check(
        &self,
        live: &Live,
        permit: &Permit,
        response: &Response,
        vetted: &mut Vetted,
        until: Instant,
    ) -> Result<(), Unproved> {
        let Some(validator) = live.validator.as_ref() else { return Ok(()) };
        vetted.answer.authentic_data = false;
        let is_left_to_client = permit.checking_disabled() && live.allow_cd;
        if is_left_to_client || vetted.kind == Kind::Failure {
            return Ok(());
        }
        let mut work = Work::new(validator.limits(), permit.sharing().partition);
        let verdict = self.judge(live, validator, permit, response, until, &mut work).await;
        self.validated.note(verdict, &work);
        let (answer, whole) = (&mut vetted.answer, vetted.whole);
        match verdict {
            Verdict::Secure { ttl } => {
                answer.authentic_data = whole;
                answer.ttl = answer.ttl.min(ttl);
                Ok(())
            }
            Verdict::Insecure(why) => {
                answer.ede = why.map(Unchecked::ede);
                Ok(())
            }
            Verdict::Bogus(why) => Err(Unproved { ede: why.ede(), text: why.text(), bogus: true }),
            Verdict::Indeterminate(why) => {
                Err(Unproved { ede: Ede::DnssecIndeterminate, text: why.text(), bogus: false })
            }
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
        let mut lookups = LookUps::new(&self.forwarder, work.partition(), until);
        loop {
            let asked = Asked::from(permit);
            let lack = match validator.judge(&response.wire, asked, &live.answers, clock::now(), work) {
                Step::Done(verdict) => return verdict,
                Step::Ask(lack) => lack,
            };
            if !lookups.is_asked(lack.need())
                && let Err(verdict) = work.look_up()
            {
                return verdict;
            }
            for need in lack.ahead() {
                // As second queries are: no question's first may find no room because of them.
                let is_room = self.forwarder.in_flight() < self.shares.capacity() / 2;
                if is_room && !lookups.is_asked(need) && work.look_ahead() {
                    lookups.ask(need.clone());
                }
            }
            let reply = match lookups.reply(lack.need()).await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::debug!(%error, "keys could not be looked up");
                    let is_late = matches!(error, ForwardError::Late(_));
                    let why = if is_late { Unknown::Time } else { Unknown::Unanswered };
                    return Verdict::Indeterminate(why);
                }
            };
            let learned = validator.learn(&lack, &reply.wire, clock::now(), work);
            let from = reply.upstream;
            reply.kept();
            let proves = match learned {
                Ok(proves) => proves,
                Err(verdict) => return verdict,
            };
            if !proves
                && work.look_up().is_ok()
                && let Some(other) =
                    self.forwarder.look_up_keys_besides(lack.need(), work.partition(), from, until).await
            {
                // What this one does not prove either stays as it was found.
                let learned = validator.learn(&lack, &other.wire, clock::now(), work);
                other.kept();
                if let Err(verdict) = learned {
                    return verdict;
                }
            }
        }
    }
}

/// Look-ups of one question, as many as its [`Work`] allows. Those that are under way when it is dropped go on for others.
struct LookUps<'p> {
    forwarder: &'p Forwarder,
    partition: Partition,
    until: Instant,
    /// Those that were begun before they were lacking, and are still so.
    under_way: JoinSet<(Need, Result<Landed, ForwardError>)>,
    /// The same, of which the reply is here or not.
    ahead: Vec<(Need, Option<Result<Landed, ForwardError>>)>,
}

impl<'p> LookUps<'p> {
    fn new(forwarder: &'p Forwarder, partition: Partition, until: Instant) -> Self {
        Self { forwarder, partition, until, under_way: JoinSet::new(), ahead: Vec::new() }
    }

    fn is_asked(&self, need: &Need) -> bool {
        self.ahead.iter().any(|(asked, _)| asked == need)
    }

    /// Begins what is not lacking yet.
    fn ask(&mut self, need: Need) {
        let (forwarder, partition, until) = (self.forwarder.clone(), self.partition, self.until);
        self.ahead.push((need.clone(), None));
        self.under_way.spawn(async move {
            let outcome = forwarder.look_up_keys(&need, partition, until).await;
            (need, outcome)
        });
    }

    /// The reply to what is lacking.
    async fn reply(&mut self, need: &Need) -> Result<Landed, ForwardError> {
        let Some(at) = self.ahead.iter().position(|(asked, _)| asked == need) else {
            return self.forwarder.look_up_keys(need, self.partition, self.until).await;
        };
        loop {
            if let Some((_, found)) = self.ahead.get_mut(at)
                && let Some(outcome) = found.take()
            {
                self.ahead.swap_remove(at);
                return match outcome {
                    // There was no room for what was not lacking.
                    Err(ForwardError::Busy) => self.forwarder.look_up_keys(need, self.partition, self.until).await,
                    outcome => outcome,
                };
            }
            // A task that has panicked is no reply; who is left without one asks anew.
            match self.under_way.join_next().await {
                Some(Ok((of, outcome))) => {
                    if let Some((_, found)) = self.ahead.iter_mut().find(|(asked, _)| *asked == of) {
                        *found = Some(outcome);
                    }
                }
                Some(Err(_)) => {}
                None => return self.forwarder.look_up_keys(need, self.partition, self.until).await,
            }
        }
    }
}
