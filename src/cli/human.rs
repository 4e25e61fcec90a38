//! Answers in words. Names arrive escaped; people's words are escaped here.

mod service;

use std::fmt::Write;

use serde_json::Value;

pub use service::{learned, status};

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
        text(&s["queries"]),
        text(&s["refused"]),
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
    // Let go on its way, and nothing came of it.
    let failed = e["verdict"] == "answer" && e["source"] == "failed";
    let mut out = format!(
        "{} {:<20} {:<10} {:<6} {}",
        text(&e["time"]),
        text(&e["session"]),
        if failed { "failed".into() } else { text(&e["verdict"]) },
        text(&e["qtype"]),
        text(&e["qname"]),
    );
    if e["would"] != "answer" {
        let _ = write!(out, "  [{} {}, case {}]", text(&e["would"]), text(&e["reason"]), text(&e["case"]));
    } else if !e["reason"].is_null() {
        let _ = write!(out, "  [{}]", text(&e["reason"]));
    }
    if e["count"].is_number() {
        let _ = write!(out, "  {} times", e["count"]);
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
    if v["search_suffix"].is_string() {
        let suffix = text(&v["search_suffix"]);
        let _ = write!(
            out,
            "\n  note      a whole name stands in front of {suffix}: if the sandbox's search list has that, announce it \
             (--search {suffix}), and such names are answered here"
        );
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
        for name in v["names"].as_array().into_iter().flatten().filter(|name| **name != e["qname"]) {
            let _ = write!(out, "\n  also      {}", text(name));
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(more: &Value) -> Value {
        let mut event = json!({
            "time": "2026-12-01T00:00:00.000Z", "session": "a", "verdict": "answer", "would": "answer", "source": "upstream",
            "qtype": "A", "qname": "www.site.example",
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        event
    }

    #[test]
    fn a_line_of_an_event_says_what_the_client_got() {
        for (more, words) in [
            (json!({}), "answer     A      www.site.example"),
            (json!({ "count": 9 }), "answer     A      www.site.example  9 times"),
            (json!({ "source": "failed" }), "failed     A      www.site.example"),
            (json!({ "source": "failed", "reason": "not-pinned" }), "failed     A      www.site.example  [not-pinned]"),
            (
                json!({ "verdict": "sinkhole", "would": "sinkhole", "source": "policy", "reason": "score", "case": "c1" }),
                "sinkhole   A      www.site.example  [sinkhole score, case c1]",
            ),
        ] {
            let said = event(&asked(&more));
            assert!(said.ends_with(words), "{said}");
        }
    }

    #[test]
    fn sessions_stand_in_columns() {
        let session = |id: &str, queries: u64, refused: u64| {
            json!({
                "id": id, "state": "active", "type": "batch", "mode": "enforce", "queries": queries, "refused": refused,
                "ledger_bits": 0.5, "addresses": ["192.0.2.1"],
            })
        };
        let said = sessions(&json!({ "sessions": [session("a", 7, 0), session("longer", 12_345, 678)] }));
        let place = |line: &str| line.find("refused");
        assert!(
            said.lines().all(|line| place(line).is_some() && place(line) == said.lines().next().and_then(place)),
            "{said}"
        );
    }
}
