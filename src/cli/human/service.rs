//! The service as a whole in words: its status, and what it has learned.

use std::fmt::Write;

use serde_json::Value;

use super::{number, text};

pub fn status(v: &Value) -> String {
    let (e, counts) = (&v["enforcement"], &v["enforcement"]["counts"]);
    let health = if e["healthy"] == true { "holds what was ordered" } else { "DOES NOT HOLD what was ordered" };
    let mut out = format!(
        "staunch {} in {} mode: {} sessions, {} answers cached, {} alerts waiting, {} events dropped",
        text(&v["version"]),
        text(&v["mode"]),
        v["sessions"],
        v["cache_entries"],
        v["alerts_waiting"],
        v["events_dropped"],
    );
    let _ = write!(
        out,
        "\nenforcement    {} {health}: {} pins, {} sessions guarded, {} quarantined, {} orders failed",
        text(&e["backend"]),
        number(&counts["pins4"]) + number(&counts["pins6"]),
        counts["guarded"],
        counts["quarantined"],
        e["failed"],
    );
    if !e["last_error"].is_null() {
        let _ = write!(out, "\nlast error     {}", text(&e["last_error"]));
    }
    let ready = if v["readiness"]["ready"] == true { "ready" } else { "NOT READY" };
    let _ = write!(out, "\nreadiness      {ready}");
    for check in v["readiness"]["checks"].as_array().into_iter().flatten() {
        let (id, state) = (text(&check["id"]), text(&check["state"]));
        let _ = write!(out, "\n  {id:<13} {state:<12} {}", text(&check["text"]));
    }
    for receiver in v["alert_receivers"].as_array().into_iter().flatten() {
        alert_receiver(&mut out, receiver);
    }
    let lists = &v["lists"];
    let _ = write!(out, "\nlists          {} in force, {} names denied", text(&lists["lists"]), text(&lists["names"]));
    for (field, words) in [("missing", "NEVER FETCHED"), ("failing", "NOT FETCHED"), ("held", "WAITING")] {
        if number(&lists[field]) > 0.0 {
            let _ = write!(out, ", {} {words}", lists[field]);
        }
    }
    for upstream in v["upstreams"].as_array().into_iter().flatten() {
        let _ = write!(out, "\nupstream       {}: {}", text(&upstream["server"]), text(&upstream["standing"]));
        if let Some(ms) = upstream["rtt_ms"].as_f64() {
            let _ = write!(out, ", {ms:.1} ms");
        }
        if let Some(why) = upstream["unconnected"].as_str() {
            let _ = write!(out, ", no connection ({why})");
        }
        if upstream["keeps_case"] == false {
            out += ", folds letter case";
        }
        if upstream["cookies"] == true {
            out += ", has cookies";
        }
    }
    if v["node"].is_object() {
        let (kid, key) = (text(&v["node"]["kid"]), text(&v["node"]["public_key"]));
        let _ = write!(out, "\nnode           {kid}\npublic key     {key}");
    }
    for group in v["groups"]["spending_most"].as_array().into_iter().flatten() {
        let (owner, spent) = (text(&group["owner"]), number(&group["spent_bits"]));
        let _ = write!(out, "\ngroup          {owner}: {spent:.1} bits within 24 hours");
    }
    if number(&v["groups"]["shared_bits"]) > 0.0 {
        let _ = write!(out, "\ngroups         {:.1} bits by owners without room", number(&v["groups"]["shared_bits"]));
    }
    let _ = write!(out, "\nconfiguration  {}", text(&v["digest"]));
    for zone in v["rpz"].as_array().into_iter().flatten() {
        let _ = write!(out, "\npolicy zone    {}", policy_zone(zone));
    }
    if v["thresholds"]["from"] == "learned" {
        for threshold in v["thresholds"]["profiles"].as_array().into_iter().flatten() {
            let _ = write!(out, "\nthresholds     {}", settled(threshold));
        }
    }
    out
}

/// One receiver of alerts; one that has taken everything needs no word.
fn alert_receiver(out: &mut String, v: &Value) {
    if number(&v["waiting"]) == 0.0 && v["failing"] == false {
        return;
    }
    let _ = write!(out, "\nalerts         {}: {} wait", text(&v["name"]), v["waiting"]);
    if let Some(oldest) = v["oldest"].as_u64() {
        let _ = write!(out, ", the oldest since {}", crate::telemetry::rfc3339(oldest));
    }
    if v["failing"] == true {
        *out += ", NOT TAKEN at the last try (the log says why)";
    }
}

/// One policy zone.
fn policy_zone(zone: &Value) -> String {
    let mut out = format!("{}: {} rules", text(&zone["zone"]), zone["rules"]);
    match zone["serial"].as_u64() {
        Some(serial) => out += &format!(", serial {serial}"),
        None => out += ", no copy yet",
    }
    if zone["expired"] == true {
        out += ", EXPIRED";
    }
    if zone["error"].is_string() {
        out += &format!(", last try failed: {}", text(&zone["error"]));
    }
    out
}

/// One profile's thresholds and why.
fn settled(v: &Value) -> String {
    format!(
        "{:<20} sinkhole {:.2}, watch {:.2}, {}: {}",
        text(&v["profile"]),
        number(&v["sinkhole"]),
        number(&v["watch"]),
        text(&v["from"]),
        text(&v["why"]),
    )
}

pub fn learned(v: &Value) -> String {
    let mut out = format!(
        "thresholds {}; learned ones take {} sessions and {} pairs of a type, for 1 refused pair in {}",
        text(&v["thresholds"]),
        v["minimum"]["sessions"],
        v["minimum"]["pairs"],
        v["pairs_per_alarm"],
    );
    let profiles = v["profiles"].as_array().map(Vec::as_slice).unwrap_or_default();
    if profiles.is_empty() {
        out += "\nnothing was learned yet";
    }
    for p in profiles {
        let _ = write!(
            out,
            "\n{}: {} sessions, {} pairs, {} to {}",
            text(&p["profile"]),
            p["sessions"],
            p["pairs"],
            text(&p["since"]),
            text(&p["until"]),
        );
        let left_out = &p["left_out"];
        let _ = write!(out, "\n  left out      {} sessions, {} pairs", left_out["sessions"], left_out["pairs"]);
        let refused = &p["refused_by_shipped"];
        let _ = write!(
            out,
            "\n  shipped {:.1}   would refuse {} pairs in {} sessions: at most 1 in {:.0} (95 %)",
            number(&v["shipped"]["sinkhole"]),
            refused["pairs"],
            refused["sessions"],
            1.0 / number(&refused["rate_at_most"]).max(f64::MIN_POSITIVE),
        );
        for kind in ["score", "refusable_score", "tenant_bits", "session_bits"] {
            let _ = write!(out, "\n  {kind:<16}");
            for share in ["50", "90", "99", "99.9"] {
                match &p["quantiles"][kind][share] {
                    Value::Null => {
                        let _ = write!(out, " {share} % -");
                    }
                    value => {
                        let _ = write!(out, " {share} % {:.1}", number(value));
                    }
                }
            }
        }
        let budgets = &p["suggested_budgets"];
        if !budgets["tenant"].is_null() || !budgets["session"].is_null() {
            let (tenant, session) = (text(&budgets["tenant"]), text(&budgets["session"]));
            let _ = write!(out, "\n  budgets       tenant {tenant}, session {session} bits would cover 99.9 %");
        }
        let _ = write!(out, "\n  next reload   {}", settled(&p["next"]));
    }
    for a in v["aside"].as_array().into_iter().flatten() {
        let _ = write!(
            out,
            "\nset aside: {} with {} pairs until {}, learned under the scoring of version {}",
            text(&a["profile"]),
            a["pairs"],
            text(&a["until"]),
            text(&a["product"]),
        );
    }
    out
}
