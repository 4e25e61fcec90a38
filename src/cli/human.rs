//! Answers in words. Names arrive escaped; people's words are escaped here.

use std::fmt::Write;

use serde_json::Value;

/// A JSON string without its quotes, on one line whatever somebody has put into it; `-` for null.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => crate::words::shown(s),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

pub fn reloaded(v: &Value) -> String {
    format!("configuration {} in force", text(&v["digest"]))
}

pub fn session_line(s: &Value) -> String {
    format!(
        "{:<24} {:<12} {:<12} {:<8} {:>7} asked {:>6} refused {:>8.1} bits  {}{}",
        text(&s["id"]),
        text(&s["state"]),
        text(&s["type"]),
        text(&s["mode"]),
        s["queries"],
        s["refused"],
        number(&s["ledger_bits"]),
        text(&s["addresses"]),
        if s["on_disk"] == false { "  (not on disk yet)" } else { "" },
    )
}

/// What a release did; `extend` is what was asked to be added to the limits, in bits.
pub fn released(v: &Value, extend: u32) -> String {
    let mut out = text(&v["session"]);
    out += if v["released"] == true { " released" } else { " was not quarantined" };
    if extend > 0 {
        let _ = write!(out, "; each of its limits was raised by {extend} bits");
    }
    if v["ledger_spent"] == true {
        out += if extend > 0 { ", and its ledger is still spent" } else { "; its ledger is spent: see --extend" };
    }
    out
}

pub fn quarantined(v: &Value) -> String {
    let (session, case) = (text(&v["session"]), text(&v["case"]));
    let already = &v["already"];
    if !already.is_object() {
        return format!("{session} quarantined, case {case}");
    }
    let (since, by, note) = (text(&already["since"]), text(&already["by"]), text(&already["note"]));
    format!("{session} was closed already, since {since} by {by}: {note} (case {case}); nothing was changed")
}

pub fn sessions(v: &Value) -> String {
    let lines: Vec<_> = v["sessions"].as_array().into_iter().flatten().map(session_line).collect();
    if lines.is_empty() { "no sessions".into() } else { lines.join("\n") }
}

pub fn session(v: &Value) -> String {
    let mut out = session_line(&v["session"]);
    let _ = write!(out, "\n  profile   {}", text(&v["profile"]));
    let _ = write!(
        out,
        "\n  ledger    {:.1} bits in all, {:.1} of {:.0} over unlisted domains",
        number(&v["ledger"]["total_bits"]),
        number(&v["ledger"]["session_bits"]),
        number(&v["budgets"]["session"]),
    );
    if number(&v["ledger"]["extended_bits"]) > 0.0 {
        let _ = write!(out, "\n  extended  each limit by {:.0} bits", number(&v["ledger"]["extended_bits"]));
    }
    if let Some(group) = v["group"].as_object() {
        let _ = write!(
            out,
            "\n  group     {}: {:.1} of {:.0} bits within 24 hours, {} names{}",
            text(&group["owner"]),
            number(&group["spent_bits"]),
            number(&v["budgets"]["group"]),
            group["names"],
            if group["shared"] == true { ", a ledger shared with other owners" } else { "" },
        );
    }
    if let Some(q) = v["quarantine"].as_object() {
        let would = if q["applied"] == true { "closed" } else { "would be closed" };
        let _ = write!(
            out,
            "\n  {would}  since {} by {}: {} ({}, case {})",
            text(&q["since"]),
            text(&q["by"]),
            text(&q["note"]),
            text(&q["reason"]),
            text(&q["case"]),
        );
    }
    for name in v["samples"].as_array().into_iter().flatten() {
        let _ = write!(out, "\n  refused   {}", text(name));
    }
    for pin in v["pins"].as_array().into_iter().flatten() {
        pinned(&mut out, pin);
    }
    out
}

/// One address a session has open.
fn pinned(out: &mut String, pin: &Value) {
    let _ = write!(out, "\n  pin       {}", text(&pin["address"]));
    for lease in pin["leases"].as_array().into_iter().flatten() {
        let _ = write!(out, " {} for {} s", words(&lease["ports"]), lease["seconds_left"]);
    }
    if pin["confirmed"] == false {
        *out += ", not confirmed for all of its addresses";
    }
    if pin["open_flows"] == true {
        *out += ", in use";
    }
    if number(&pin["octets_out"]) > 0.0 || !pin["octets_limit"].is_null() {
        let _ = write!(out, ", {} octets sent", pin["octets_out"]);
    }
    if !pin["octets_limit"].is_null() {
        let _ = write!(out, " of {}", pin["octets_limit"]);
    }
    let _ = write!(out, "\n            by {}", words(&pin["names"]));
    if number(&pin["other_names"]) > 0.0 {
        let _ = write!(out, "; {} other names are known there", pin["other_names"]);
    }
}

/// Texts of an array, one behind the other.
fn words(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ")
}

pub fn event(e: &Value) -> String {
    if let Some(lost) = e.get("lost") {
        return format!("({lost} events were lost: this reader is too slow)");
    }
    if e["notice"].is_string() {
        let session = e["session"].as_str().unwrap_or("-");
        return format!("{} {session:<20} {:<10} {}", text(&e["time"]), text(&e["notice"]), text(&e["text"]));
    }
    let mut out = format!(
        "{} {:<20} {:<10} {:<6} {}",
        text(&e["time"]),
        text(&e["session"]),
        text(&e["verdict"]),
        text(&e["qtype"]),
        text(&e["qname"]),
    );
    if e["would"] != "answer" {
        let _ = write!(out, "  [{} {}, case {}]", text(&e["would"]), text(&e["reason"]), text(&e["case"]));
    }
    if let Some(score) = e["score"].as_object() {
        let _ = write!(out, "  score {:.1}, {:.1} bits", number(&score["total"]), number(&score["charged_bits"]));
    }
    out
}

fn score_table(out: &mut String, score: &Value) {
    let _ = write!(
        out,
        "\n  score     {:+.2} nats, {} families agree, band {}",
        number(&score["total"]),
        score["agreeing"],
        text(&score["band"]),
    );
    for reading in score["readings"].as_array().into_iter().flatten() {
        let value = match &reading["value"] {
            Value::Null => "unknown".to_owned(),
            value => format!("{:.2}", number(value)),
        };
        let _ = write!(
            out,
            "\n    {:<20} {:<10} {:>10}  {:+.2}",
            text(&reading["signal"]),
            text(&reading["family"]),
            value,
            number(&reading["contribution"]),
        );
    }
    let (before, after) = (&score["ledger_before"], &score["ledger_after"]);
    let _ = write!(
        out,
        "\n  ledger    {:.1} bits in this name, {:.1} charged",
        number(&score["information_bits"]),
        number(&score["charged_bits"]),
    );
    for scope in ["tenant", "icann", "session"] {
        let _ = write!(out, "\n    {scope:<20} {:>10.1} -> {:.1} bits", number(&before[scope]), number(&after[scope]));
    }
}

fn rule(out: &mut String, rule: &Value) {
    if rule.is_object() {
        let _ = write!(out, "\n  rule      {} at {}:{}", text(&rule["id"]), text(&rule["file"]), rule["line"]);
    }
}

pub fn explanation(v: &Value) -> String {
    let mut out =
        format!("{} {} as {}: {}", text(&v["qname"]), text(&v["qtype"]), text(&v["session"]), text(&v["verdict"]));
    if v["verdict"] != v["would"] {
        let _ = write!(out, " (in enforce mode: {})", text(&v["would"]));
    }
    if !v["reason"].is_null() {
        let _ = write!(out, "\n  reason    {}", text(&v["reason"]));
    }
    if v["grant"].is_object() {
        let _ = write!(out, "\n  grant     {}: {}", text(&v["grant"]["id"]), super::grants::terms(&v["grant"]));
    } else {
        rule(&mut out, &v["rule"]);
    }
    let _ = write!(out, "\n  from      {}", text(&v["source"]));
    if v["local"].is_object() {
        let rcode = if v["local"]["rcode"] == 3 { "NXDOMAIN" } else { "NOERROR" };
        let _ = write!(out, " ({}: {rcode})", text(&v["local"]["rule"]));
    }
    let _ = write!(out, "\n  profile   {} ({} mode)", text(&v["profile"]), text(&v["mode"]));
    let _ = write!(out, "\n  domain    {} (below public suffixes {})", text(&v["tenant"]), text(&v["icann"]));
    if v["age"].is_object() {
        age(&mut out, &v["age"]);
    }
    if v["score"].is_object() {
        score_table(&mut out, &v["score"]);
    }
    out
}

/// Where a domain's age comes from.
fn age(out: &mut String, v: &Value) {
    let looked_up = v["looked_up"].as_str().map(|at| format!(" (registry asked {at})")).unwrap_or_default();
    let registered = &v["registered"];
    let _ = match registered["from"].as_str() {
        Some("list") => write!(
            out,
            "\n  age       registered {} by list {} ({}){looked_up}",
            text(&registered["day"]),
            text(&registered["list"]),
            text(&registered["file"]),
        ),
        Some(_) => write!(out, "\n  age       registered {} by its registry{looked_up}", text(&registered["day"])),
        None => write!(out, "\n  age       registration unknown{looked_up}"),
    };
    for (field, who) in [("first_seen_days", "here"), ("group_seen_days", "by its group")] {
        if let Some(days) = v[field].as_f64() {
            let _ = write!(out, ", first seen {who} {days:.1} days ago");
        }
    }
}

pub fn why(v: &Value) -> String {
    let mut parts = Vec::new();
    if v["quarantine"].is_object() {
        parts.push(closed(v));
    }
    if v["alert"].is_object() {
        parts.push(alert(&v["alert"]));
    }
    let e = &v["event"];
    if e.is_object() {
        let mut out = event(e);
        let _ = write!(out, "\n  owner     {}", text(&e["owner"]));
        let _ = write!(out, "\n  mode      {} (applied: {})", text(&e["mode"]), text(&e["verdict"]));
        rule(&mut out, &e["rule"]);
        if e["score"].is_object() {
            score_table(&mut out, &e["score"]);
        }
        parts.push(out);
    }
    parts.join("\n")
}

/// A quarantine and, where it has ended, its release.
fn closed(v: &Value) -> String {
    let q = &v["quarantine"];
    let did = if q["applied"] == false { "would have been closed in enforce mode" } else { "was closed" };
    let mut out = format!(
        "session {} {did} at {} by {}: {} ({})",
        text(&v["session"]),
        crate::telemetry::rfc3339(q["since"].as_u64().unwrap_or(0)),
        text(&q["by"]),
        text(&q["note"]),
        text(&q["reason"]),
    );
    let release = &v["release"];
    if release.is_object() {
        let (time, by, note) = (text(&release["time"]), text(&release["by"]), text(&release["note"]));
        let _ = write!(out, "\nand released at {time} by {by}: {note}");
        if number(&release["extended_bits"]) > 0.0 {
            let _ = write!(out, " (each limit raised by {} bits)", release["extended_bits"]);
        }
    }
    out
}

fn alert(a: &Value) -> String {
    let mut out = format!("{} alert {}: {}", text(&a["time"]), text(&a["kind"]), text(&a["summary"]));
    let _ = write!(out, "\n  session   {} ({})", text(&a["session"]), text(&a["type"]));
    let _ = write!(out, "\n  owner     {}", text(&a["owner"]));
    let _ = write!(out, "\n  mode      {}", text(&a["mode"]));
    let _ = write!(out, "\n  reason    {}", text(&a["reason"]));
    let _ = write!(out, "\n  leaked    at most {:.1} bits in names", number(&a["leaked_bits_at_most"]));
    for name in a["samples"].as_array().into_iter().flatten() {
        let _ = write!(out, "\n  refused   {}", text(name));
    }
    out
}

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
