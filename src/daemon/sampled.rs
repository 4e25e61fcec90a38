//! Values on the metrics page that live in other stages.

mod records;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use records::{alerts, journal};

use super::{http, log, reload, room};
use crate::clock;
use crate::config::ListReport;
use crate::decoy::Kind;
use crate::forward::{FailKind, Standing, UpstreamStatus};
use crate::listen;
use crate::lists::SkipKind;
use crate::mishap;
use crate::pipeline::{Ages, Pipeline};
use crate::session::{Past, State};
use crate::telemetry::{Sample, Sampled};
use crate::validate::{KeyState, Validator};

/// Reads the pipeline's stages when the page is asked for. Holds no stage alive.
pub struct Stages {
    /// The walk.
    pub pipeline: Weak<Pipeline>,
    /// What the listeners count.
    pub listeners: Arc<listen::Counters>,
    /// What the page itself counts.
    pub page_closed: http::Closed,
    /// How short memory is.
    pub memory: Arc<room::Counters>,
    /// How reloads ended.
    pub reloads: Arc<reload::Counters>,
}

impl Sampled for Stages {
    fn sample(&self) -> Vec<Sample> {
        let Some(pipeline) = self.pipeline.upgrade() else { return Vec::new() };
        let mut all = Vec::new();
        own(&mut all, &pipeline);
        listeners(&mut all, &self.listeners);
        let help = "Connections to this page closed at a limit of their number or time";
        all.push(plain("page_closed_total", help, read(&self.page_closed)));
        memory(&mut all, &self.memory, &pipeline);
        reloads(&mut all, &self.reloads);
        shares(&mut all, &pipeline);
        upstream(&mut all, &pipeline);
        dnssec(&mut all, &pipeline);
        ages(&mut all, &pipeline.ages);
        decoys(&mut all, &pipeline);
        held(&mut all, &pipeline);
        lists(&mut all, &pipeline);
        prefetch(&mut all, &pipeline);
        journal(&mut all, &pipeline.store.status());
        if let Some(delivery) = &*pipeline.delivery.lock() {
            alerts(&mut all, &delivery.status(), clock::now().wall.shown);
        }
        sessions(&mut all, &pipeline);
        all
    }
}

fn plain(name: &'static str, help: &'static str, value: f64) -> Sample {
    Sample { name, help, label: None, value }
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn own(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let (enforce, spill) = (pipeline.enforcer.status(), pipeline.telemetry.spill());
    all.extend([
        plain(
            "wall_clock_set_seconds",
            "How far somebody has set the wall clock since the start; negative for back",
            clock::now().wall.set_by() as f64 / 1e3,
        ),
        plain("cache_entries", "Answers at hand", pipeline.cache.len() as f64),
        plain("groups", "Groups of sessions with a ledger of their own", pipeline.groups.len() as f64),
        plain(
            "groups_crowded_total",
            "Questions judged by the ledger that groups without room share",
            pipeline.groups.crowded() as f64,
        ),
        plain("mishaps_total", "Panics of work beside questions, which goes on", mishap::count() as f64),
        plain("events_dropped_total", "Events dropped because the queue was full", pipeline.telemetry.dropped() as f64),
        flag("events_failing", "1 if the last write of events failed or does not end", spill.failing),
        plain("events_spilled", "Events that wait in memory for the disk", spill.waiting as f64),
        plain("events_shed_total", "Events given up for want of that memory", spill.shed as f64),
        plain("alerts_waiting", "Alerts not yet taken by every sink", pipeline.alerts_waiting() as f64),
        plain(
            "enforcement_healthy",
            "1 if the packet filter holds what was ordered",
            f64::from(u8::from(enforce.healthy)),
        ),
        plain(
            "ready",
            "1 if the service should get new sandboxes",
            f64::from(u8::from(pipeline.unready(clock::now()).is_none())),
        ),
        plain(
            "lockdown_whole",
            "1 if the lockdown was found to stand and to cover every interface",
            f64::from(u8::from(pipeline.gate.is_whole(clock::now().mono))),
        ),
        plain("enforcement_orders_total", "Orders to the packet filter", enforce.submitted as f64),
        plain("enforcement_failed_total", "Orders the packet filter did not carry out", enforce.failed as f64),
        plain("enforcement_queue_full_total", "Orders refused because the queue was full", enforce.queue_full as f64),
        plain(
            "enforcement_ack_seconds_total",
            "Sum of times from an order to its acknowledgement",
            enforce.ack_latency_sum_us as f64 / 1e6,
        ),
    ]);
}

fn listeners(all: &mut Vec<Sample>, counters: &listen::Counters) {
    all.extend([
        plain("packets_total", "Messages received", read(&counters.packets)),
        plain("dropped_total", "Messages that got no reply", read(&counters.drops)),
        plain("rejected_total", "Messages that were no query we answer", read(&counters.rejects)),
        plain("queue_full_total", "Queries answered SERVFAIL because too many waited", read(&counters.queue_full)),
        plain("shed_total", "Datagrams of the busiest sources dropped unread under overload", read(&counters.shed)),
        plain(
            "barred_total",
            "Times that the kernel began to drop a part of what a flood sends",
            read(&counters.barred),
        ),
        plain("tcp_evicted_total", "Idle connections closed for a new one", read(&counters.tcp_evicted)),
        plain("tcp_expired_total", "Connections closed for being slow or silent", read(&counters.tcp_expired)),
        plain("tcp_unread_total", "Connections closed because their replies were not read", read(&counters.tcp_unread)),
        plain("tcp_accepted_total", "Connections accepted", read(&counters.tcp_accepted)),
        plain("tcp_refused_total", "Connections closed at a limit", read(&counters.tcp_refused)),
        plain("panics_total", "Panics caught and answered SERVFAIL", read(&counters.panics)),
        plain(
            "log_lines_dropped_total",
            "Lines of the service's log that nobody read in time, or that could not be written",
            log::dropped() as f64,
        ),
    ]);
}

fn memory(all: &mut Vec<Sample>, counters: &room::Counters, pipeline: &Pipeline) {
    let cache = &pipeline.cache;
    all.extend([
        plain("memory_limit_octets", "What the control group may hold; 0 without a limit", read(&counters.limit)),
        plain("memory_held_octets", "Of it in use, without pages of files", read(&counters.held)),
        plain("cache_octets", "What answers at hand take, as reckoned", cache.weight() as f64),
        plain(
            "cache_room_octets",
            "What they may take; less than configured while memory is short",
            cache.room() as f64,
        ),
        plain(
            "cache_shrunk_total",
            "Times that the cache got less room because memory was short",
            read(&counters.shrunk),
        ),
    ]);
}

fn reloads(all: &mut Vec<Sample>, counters: &reload::Counters) {
    for (outcome, count) in [("done", &counters.done), ("refused", &counters.refused)] {
        all.push(Sample {
            name: "reloads_total",
            help: "Reloads of the configuration file",
            label: Some(("outcome", outcome)),
            value: read(count),
        });
    }
    let is_refused = counters.is_refused.load(Ordering::Relaxed);
    all.push(flag(
        "reload_refused",
        "1 if the last reload was refused, so the file is not what is in force",
        is_refused,
    ));
}

fn shares(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let (silent, curtailed) = pipeline.unproven();
    all.extend([
        plain("questions_waiting", "Questions in the slow path", pipeline.waiting() as f64),
        plain("strangers_unanswered_total", "Datagrams of strangers past their network's pace", silent as f64),
        plain(
            "curtailed_total",
            "Replies cut down because they were much longer than the query of an unproven source",
            curtailed as f64,
        ),
    ]);
    for past in Past::ALL {
        all.push(Sample {
            name: "past_share_total",
            help: "Questions answered SERVFAIL because a share of the slow path was used up",
            label: Some(("share", past.as_str())),
            value: pipeline.past_share(past) as f64,
        });
    }
}

fn upstream(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = pipeline.forwarder.counters();
    all.extend([
        plain("upstream_questions_total", "Questions for an upstream", read(&counters.questions)),
        plain("upstream_coalesced_total", "Of these, joined to one under way", read(&counters.coalesced)),
        plain("upstream_failed_total", "Of these, failed at every upstream", read(&counters.failed)),
        plain("upstream_all_down_total", "Of these, failed at once with every upstream down", read(&counters.all_down)),
        plain("upstream_mismatches_total", "Datagrams that fitted no question", read(&counters.mismatches)),
        plain("upstream_mismatch_floods_total", "Turns to TCP because of them", read(&counters.mismatch_floods)),
        plain(
            "upstream_flood_tcp_total",
            "Tries over TCP from the start, because of a flood before",
            read(&counters.flood_tcp),
        ),
        plain(
            "upstream_doubted_total",
            "Datagrams that fitted but for letter case or cookie; their questions went over TCP",
            read(&counters.doubted),
        ),
        plain(
            "upstream_trials_total",
            "Questions of our own that try how upstreams treat datagrams",
            read(&counters.trials),
        ),
        plain("upstream_connections_total", "Connections opened to upstreams", read(&counters.connections)),
        plain("upstream_tls_handshakes_total", "Of these, TLS handshakes in full", read(&counters.tls_handshakes)),
        plain("upstream_tls_resumed_total", "Of these, TLS sessions resumed", read(&counters.tls_resumed)),
        plain(
            "upstream_reconnected_total",
            "Queries sent once more because the server had closed a connection, or did not take it",
            read(&counters.reconnected),
        ),
        plain("upstream_hedged_total", "Second queries before the first had failed", read(&counters.hedged)),
        plain(
            "upstream_hedges_denied_total",
            "Exchanges whose second query waited because there were too many",
            read(&counters.hedges_denied),
        ),
        plain("upstream_repeated_total", "Queries repeated after silence everywhere", read(&counters.repeated)),
        plain("upstream_probes_total", "Questions of our own to silent upstreams", read(&counters.probes)),
        plain("upstream_breakers_opened_total", "Times an upstream was found down", read(&counters.breakers_opened)),
        plain("upstream_breakers_closed_total", "Times one answered again", read(&counters.breakers_closed)),
        plain(
            "upstream_put_behind_total",
            "Times an upstream was put behind others that answered what it failed",
            read(&counters.put_behind),
        ),
    ]);
    for (transport, count) in
        [("udp", &counters.udp_queries), ("tcp", &counters.tcp_queries), ("tls", &counters.tls_queries)]
    {
        all.push(Sample {
            name: "upstream_queries_total",
            help: "Queries sent to upstreams",
            label: Some(("transport", transport)),
            value: read(count),
        });
    }
    let upstreams = pipeline.forwarder.upstreams();
    let number = |is_so: fn(&UpstreamStatus) -> bool| upstreams.iter().filter(|up| is_so(up)).count() as f64;
    all.extend([
        plain(
            "upstreams_folding_case",
            "Upstreams that do not keep letter case",
            number(|up| up.keeps_case == Some(false)),
        ),
        plain(
            "upstream_connections_open",
            "Connections open to upstreams",
            upstreams.iter().map(|up| up.connections).sum::<usize>() as f64,
        ),
        plain("upstreams_with_cookies", "Upstreams with DNS cookies", number(|up| up.has_cookies == Some(true))),
        plain(
            "upstreams_unconnected",
            "Upstreams to which the last connection failed",
            number(|up| up.unconnected.is_some()),
        ),
    ]);
    let standing: Vec<_> = upstreams.iter().map(|upstream| upstream.standing).collect();
    for wanted in Standing::ALL {
        all.push(Sample {
            name: "upstreams",
            help: "Upstreams by standing",
            label: Some(("standing", wanted.as_str())),
            value: standing.iter().filter(|found| **found == wanted).count() as f64,
        });
    }
    for (kind, count) in FailKind::ALL.iter().zip(&counters.failures) {
        all.push(Sample {
            name: "upstream_tries_failed_total",
            help: "Failed tries at an upstream",
            label: Some(("kind", kind.as_str())),
            value: read(count),
        });
    }
}

fn dnssec(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = &pipeline.validated;
    for (verdict, count) in [
        ("secure", &counters.secure),
        ("insecure", &counters.insecure),
        ("bogus", &counters.bogus),
        ("indeterminate", &counters.indeterminate),
    ] {
        all.push(Sample {
            name: "dnssec_answers_total",
            help: "Answers checked against their signatures",
            label: Some(("verdict", verdict)),
            value: read(count),
        });
    }
    all.extend([
        plain("dnssec_signatures_total", "Signatures checked for them", read(&counters.signatures)),
        plain("dnssec_nsec3_hashes_total", "NSEC3 hashes computed for them", read(&counters.hashes)),
        plain("dnssec_lookups_total", "Look-ups of keys for them", read(&counters.lookups)),
    ]);
    let Some(rollover) = pipeline.live.load().validator.as_ref().map(Validator::rollover) else { return };
    for state in KeyState::ALL {
        all.push(Sample {
            name: "dnssec_anchor_keys",
            help: "Keys learned of trust points (RFC 5011) by what is known of them",
            label: Some(("state", state.as_str())),
            value: rollover.count(state) as f64,
        });
    }
}

fn decoys(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = &pipeline.decoys.counters;
    all.extend([
        plain("decoys_asked_total", "Random siblings asked", read(&counters.asked)),
        plain("decoys_answered_total", "Names answered that did not leave", read(&counters.answered)),
        plain("decoys_denied_total", "Names for which no sibling could be asked", read(&counters.denied)),
        plain("decoys_evicted_total", "Parents forgotten to make room", read(&counters.evicted)),
        plain("decoy_parents", "Parents known", pipeline.decoys.len() as f64),
    ]);
    for (kind, count) in Kind::ALL.iter().zip(&counters.found) {
        all.push(Sample {
            name: "decoys_found_total",
            help: "What siblings were found to get",
            label: Some(("kind", kind.as_str())),
            value: read(count),
        });
    }
}

fn held(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = &pipeline.held.counters;
    all.extend([
        plain("held_questions", "Held questions that are asked again", pipeline.held.len() as f64),
        plain("held_refreshed_total", "Held questions asked again", read(&counters.asked)),
        plain("held_refresh_failed_total", "Of these, without a usable answer", read(&counters.failed)),
        plain(
            "held_refresh_skipped_total",
            "Held questions not asked again because the answer was new or policy refuses them now",
            read(&counters.skipped),
        ),
        plain(
            "held_refresh_late_total",
            "Held questions not asked again because upstreams were too slow",
            read(&counters.late),
        ),
        plain(
            "held_table_full_total",
            "Held queries whose question found no room among those asked again",
            read(&counters.full),
        ),
    ]);
}

fn prefetch(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = &pipeline.prefetch.counters;
    all.extend([
        plain("popular_questions", "Questions that are asked before their answers end", pipeline.prefetch.len() as f64),
        plain("prefetched_total", "Questions asked before their answers ended", read(&counters.asked)),
        plain("prefetch_failed_total", "Of these, without a usable answer", read(&counters.failed)),
        plain(
            "prefetch_refused_total",
            "Popular questions that policy did not allow any more",
            read(&counters.refused),
        ),
        plain("prefetch_table_full_total", "Questions not noted for want of room", read(&counters.full)),
    ]);
}

fn ages(all: &mut Vec<Sample>, ages: &Ages) {
    all.extend([
        plain("first_seen_domains", "Domains this deployment knows", ages.first_seen.known() as f64),
        plain("group_seen_groups", "Groups whose domains are known", ages.group_seen.groups() as f64),
        plain(
            "group_seen_entries",
            "Domains known, summed over groups, and the groups",
            ages.group_seen.known() as f64,
        ),
        plain(
            "group_seen_refused_total",
            "Domains not noted because a group or the number of groups was at its limit",
            ages.group_seen.refused() as f64,
        ),
        plain("registered_domains", "Domains whose registry was asked", ages.registered.known() as f64),
        plain(
            "registered_evicted_total",
            "Domains whose registration was forgotten for want of room",
            ages.registered.evicted() as f64,
        ),
        plain(
            "ages_unsaved_total",
            "Ages kept in memory only because the index was behind",
            (ages.first_seen.unsaved() + ages.group_seen.unsaved() + ages.registered.unsaved()) as f64,
        ),
    ]);
    let Some(rdap) = &ages.rdap else { return };
    let counters = rdap.counters();
    all.extend([
        plain("rdap_waiting", "Domains being looked up or waiting for it", rdap.waiting() as f64),
        plain("rdap_requests_total", "Requests to registries", read(&counters.requests)),
        plain("rdap_given_up_total", "Domains given up, after the last try or before any", read(&counters.given_up)),
        plain("rdap_queue_full_total", "Domains not looked up because too many waited", read(&counters.queue_full)),
        plain(
            "rdap_over_share_total",
            "Domains not looked up because a session had used its share of the hour",
            read(&counters.over_share),
        ),
    ]);
    for (outcome, count) in [
        ("dated", &counters.dated),
        ("undated", &counters.undated),
        ("absent", &counters.absent),
        ("busy", &counters.busy),
        ("refused", &counters.refused),
        ("unreachable", &counters.unreachable),
        ("panicked", &counters.panicked),
    ] {
        all.push(Sample {
            name: "rdap_outcomes_total",
            help: "Requests to registries by how they ended",
            label: Some(("outcome", outcome)),
            value: read(count),
        });
    }
}

fn lists(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let sums = pipeline.list_sums();
    all.extend([
        plain("lists", "Lists in force", sums.lists as f64),
        plain("list_names", "Distinct names that lists deny", sums.names as f64),
        plain("list_octets", "Size of the table of these names", sums.octets as f64),
        plain("lists_fetched", "Lists that are fetched", sums.fetched as f64),
        plain("lists_missing", "Of these, without a good copy yet", sums.missing as f64),
        plain("lists_failing", "Of these, whose last fetch failed, or not in force", sums.failing as f64),
        plain("lists_held", "Of these, with a version that waits for an operator", sums.held as f64),
    ]);
    let live = pipeline.live.load();
    for kind in SkipKind::ALL {
        let of = |list: &ListReport| f64::from(list.report.reasons.get(&kind).copied().unwrap_or(0));
        all.push(Sample {
            name: "list_skipped_lines",
            help: "Lines of lists that were passed over",
            label: Some(("reason", kind.as_str())),
            value: live.list_reports.iter().map(of).sum(),
        });
    }
    for (outcome, count) in pipeline.feeds.get().into_iter().flat_map(crate::feed::Feeds::outcomes) {
        all.push(Sample {
            name: "list_fetches_total",
            help: "Fetches of lists by how they ended",
            label: Some(("outcome", outcome.as_str())),
            value: count as f64,
        });
    }
}

fn flag(name: &'static str, help: &'static str, is_so: bool) -> Sample {
    plain(name, help, f64::from(u8::from(is_so)))
}

fn sessions(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let mut states = [0u32; State::ALL.len()];
    for session in pipeline.sessions.all() {
        let state = session.inner.lock().state();
        if let Some(at) = State::ALL.iter().position(|s| *s == state) {
            states[at] += 1;
        }
    }
    for (state, count) in State::ALL.iter().zip(states) {
        all.push(Sample {
            name: "sessions",
            help: "Sessions by state",
            label: Some(("state", state.as_str())),
            value: f64::from(count),
        });
    }
}
